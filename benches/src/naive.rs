//! A server of event streams as one would write it on actix-web: a broadcast channel for each
//! topic, from which every stream formats its own events. Nothing is tuned.

#![expect(clippy::unused_async, reason = "handlers of actix-web are async, whatever they do")]

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use actix_web::{
    HttpRequest, HttpResponse, Responder, body::BodyStream, error::ErrorBadRequest, web,
};
use actix_web_lab::sse::{self, Sse};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use tokio::sync::{broadcast, mpsc};

/// Events that a topic remembers, and that a stream may be behind.
const HISTORY: usize = 2_000;

/// All topics.
#[derive(Debug, Default)]
pub struct TopicSet(Mutex<HashMap<String, Arc<Mutex<Topic>>>>);

#[derive(Debug)]
struct Topic {
    sender: broadcast::Sender<Arc<Event>>,
    history: VecDeque<Arc<Event>>,
    last_id: u64,
    /// Streams of actix-web-lab.
    lab: Vec<mpsc::Sender<sse::Event>>,
}

#[derive(Debug)]
struct Event {
    id: u64,
    data: String,
}

impl Default for Topic {
    fn default() -> Self {
        let (sender, history) = (broadcast::Sender::new(HISTORY), VecDeque::new());
        Self { sender, history, last_id: 0, lab: Vec::new() }
    }
}

impl TopicSet {
    fn topic(&self, name: &str) -> Arc<Mutex<Topic>> {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(name) {
            return Arc::clone(topic);
        }
        Arc::clone(topics.entry(name.to_owned()).or_default())
    }
}

#[derive(Debug, Deserialize)]
pub struct Envelope {
    message: Message,
}

#[derive(Debug, Deserialize)]
struct Message {
    data: String,
}

#[derive(Debug, Deserialize)]
pub struct Parameters {
    topic: String,
}

/// `POST /push/{topic}`.
pub async fn push(
    topics: web::Data<TopicSet>,
    name: web::Path<String>,
    envelope: web::Json<Envelope>,
) -> actix_web::Result<HttpResponse> {
    let data = STANDARD.decode(&envelope.message.data).map_err(ErrorBadRequest)?;
    let data = String::from_utf8(data).map_err(ErrorBadRequest)?;
    let topic = topics.topic(&name);
    let mut topic = topic.lock().unwrap_or_else(PoisonError::into_inner);
    topic.last_id += 1;
    let id = topic.last_id;
    if !topic.lab.is_empty() {
        let event = sse::Event::Data(sse::Data::new(data.as_str()).id(id.to_string()));
        topic.lab.retain(|sender| sender.try_send(event.clone()).is_ok());
    }
    let event = Arc::new(Event { id, data });
    topic.history.push_back(Arc::clone(&event));
    if HISTORY < topic.history.len() {
        topic.history.pop_front();
    }
    // Without a reader it is no error.
    let _ = topic.sender.send(event);
    Ok(HttpResponse::NoContent().finish())
}

/// `GET /events?topic=`.
pub async fn events(
    topics: web::Data<TopicSet>,
    parameters: web::Query<Parameters>,
    request: HttpRequest,
) -> actix_web::Result<HttpResponse> {
    let last_id = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
    let last_id = last_id.map(str::parse::<u64>).transpose().map_err(ErrorBadRequest)?;
    let topic = topics.topic(&parameters.topic);
    let topic = topic.lock().unwrap_or_else(PoisonError::into_inner);
    let missed = topic.history.iter().filter(|event| last_id.is_some_and(|id| id < event.id));
    let missed: Vec<_> = missed.cloned().collect();
    let live = stream::unfold(topic.sender.subscribe(), async |mut receiver| {
        loop {
            match receiver.recv().await {
                Ok(event) => return Some((event, receiver)),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    let events = stream::iter(missed).chain(live).map(|event| {
        Ok::<_, Infallible>(Bytes::from(format!("id: {}\ndata: {}\n\n", event.id, event.data)))
    });
    let body = BodyStream::new(Box::pin(events));
    Ok(HttpResponse::Ok().content_type("text/event-stream").body(body))
}

/// `GET /events?topic=`, with actix-web-lab's `Sse`. It replays nothing.
pub async fn events_lab(
    topics: web::Data<TopicSet>,
    parameters: web::Query<Parameters>,
) -> impl Responder {
    let (sender, receiver) = mpsc::channel(HISTORY);
    let topic = topics.topic(&parameters.topic);
    topic.lock().unwrap_or_else(PoisonError::into_inner).lab.push(sender);
    Sse::from_infallible_receiver(receiver)
}
