//! `GET /ws`: streams over a WebSocket ([RFC 6455](https://www.rfc-editor.org/rfc/rfc6455)), and
//! commands of its client. docs/websocket.md describes the records and the commands.
//!
//! A browser tells its page nothing about a refused handshake. So a handshake is accepted unless it
//! is malformed, and a refusal is the record `end` and a close frame.

mod command;
mod connection;
mod drive;
mod effect;
mod encode;
mod frame;
mod presence;
mod publish;
mod record;

use std::{
    cell::RefCell,
    io::{self, Read as _},
    net::TcpStream,
    rc::Rc,
};

use actix_http::{
    Response,
    ws::{HandshakeError, handshake_response, verify_handshake},
};
use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse,
    http::{StatusCode, Version, header},
    rt::spawn,
    web,
};
use bytes::Bytes;
use tokio::time::Instant;

use self::{
    connection::{Connection, idle::Parked},
    drive::{Driven, READ_BYTES, drive},
    encode::format_of,
};
use crate::{
    auth::grant::Grant,
    http::{client_address::client_address, cors::Pages, problem::problem},
    inlet::publish::PublishEndpoint,
    net::{
        http1::{
            Peer,
            takeover::{TakenOver, TakenSocket, Takeover},
        },
        http2::tunnel::{Tunnel, TunnelOffer},
        socket::Socket,
    },
    outlet::{
        client::{
            Client, SharedClient,
            refusal::{CloseCode, Refusal},
        },
        events::Worker,
        tickets::redeem,
    },
    stream::{
        StreamContext,
        drive::reactor::owner::{GiveBack, Returned},
        request::{Parameters, header_id},
    },
};

/// Answers `GET`.
pub(crate) async fn websocket(
    request: HttpRequest,
    context: web::Data<StreamContext>,
    worker: web::Data<Worker>,
    pages: web::Data<Pages>,
    publish: web::Data<PublishEndpoint>,
) -> HttpResponse {
    let offer = match Offer::of(&request) {
        Ok(offer) => offer,
        Err(refusal) => return *refusal,
    };
    let address = client_address(request.head(), context.trusted_proxies);
    context.metrics.websockets_opened.inc();
    let client = Rc::new(Client { context, worker, publish, address, grant: RefCell::default() });
    let connection = connect(&request, client, &pages).await;
    let mut response = match offer {
        Offer::Socket(takeover) => {
            takeover.accept(move |socket| {
                spawn(serve(socket, connection));
                Ok(())
            });
            handshake_response(request.head())
        }
        Offer::Tunnel(offer) => {
            offer.accept(|tunnel| drop(spawn(serve_tunnel(tunnel, connection))));
            Response::build(StatusCode::OK)
        }
    };
    let response = response.message_body(TakenOver);
    response.map_or_else(
        |_| HttpResponse::InternalServerError().finish(),
        |response| HttpResponse::from(response.map_into_boxed_body()),
    )
}

/// Offer that came with a request: the connection that would carry the WebSocket.
enum Offer {
    /// Socket of HTTP/1.1.
    Socket(Rc<Takeover>),
    /// Stream of HTTP/2.
    Tunnel(Rc<TunnelOffer>),
}

impl Offer {
    /// Returns the offer of a handshake.
    ///
    /// # Errors
    /// Returns the answer to a request that is no handshake, or a malformed one.
    fn of(request: &HttpRequest) -> Result<Self, Box<HttpResponse>> {
        if let Some(offer) = request.extensions().get::<Rc<TunnelOffer>>() {
            // The other headers of a handshake have no use there (RFC 8441, section 5).
            let version = request.headers().get(header::SEC_WEBSOCKET_VERSION);
            let is_known = version.is_some_and(|version| version == "13");
            if is_known {
                return Ok(Self::Tunnel(Rc::clone(offer)));
            }
            return Err(no_handshake(request, HandshakeError::UnsupportedVersion).into());
        }
        verify_handshake(request.head()).map_err(|err| no_handshake(request, err))?;
        if let Some(takeover) = request.extensions().get::<Rc<Takeover>>() {
            return Ok(Self::Socket(Rc::clone(takeover)));
        }
        let text = "a WebSocket needs a request of HTTP/1.1 without a body, or an extended CONNECT \
                    of HTTP/2";
        Err(problem(StatusCode::BAD_REQUEST, text).into())
    }
}

/// Answers a request that is no handshake.
fn no_handshake(request: &HttpRequest, err: HandshakeError) -> HttpResponse {
    let is_upgrade =
        matches!(err, HandshakeError::NoVersionHeader | HandshakeError::BadWebsocketKey);
    if is_upgrade {
        let text = "the handshake of the WebSocket is malformed (RFC 6455, section 4.2.1): its \
                    Sec-WebSocket-Version or its Sec-WebSocket-Key";
        return problem(StatusCode::BAD_REQUEST, text);
    }
    let text = "this path is for WebSockets, of version 13: connect with a WebSocket client, as in \
                `wscat -c ws://HOST/ws?topic=TOPIC`; GET /events streams over plain HTTP";
    let mut refused = problem(StatusCode::UPGRADE_REQUIRED, text);
    let headers = refused.headers_mut();
    headers.insert(header::SEC_WEBSOCKET_VERSION, header::HeaderValue::from_static("13"));
    if request.version() < Version::HTTP_2 {
        headers.insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
    }
    refused
}

/// Admits a client, and opens the stream of its query, if there is one. A refused client gets a
/// connection that closes at once.
async fn connect(request: &HttpRequest, client: SharedClient, pages: &Pages) -> Connection {
    let mut connection = Connection::new(Rc::clone(&client), Instant::now());
    let refusal = match admit(request, &client, pages).await {
        Ok(None) => None,
        Ok(Some(parameters)) => match client.open(parameters, header_id(request), format_of) {
            Ok(session) => {
                connection.add(String::new(), session);
                None
            }
            Err(refusal) => Some(refusal),
        },
        Err(refusal) => Some(refusal),
    };
    if let Some(refusal) = refusal {
        connection.refuse(&refusal, Instant::now());
    }
    connection
}

/// Verifies the token or the ticket of a client. Returns the parameters of the stream to open.
async fn admit(
    request: &HttpRequest,
    client: &Client,
    pages: &Pages,
) -> Result<Option<Parameters>, Refusal> {
    client.count_request()?;
    if !pages.may_open_websocket(request.head()) {
        let text = "the page that opens the WebSocket (Origin) is not allowed: list its origin \
                    (--cors-origin)";
        return Err(Refusal::new(CloseCode::Forbidden, text));
    }
    let parameters = Parameters::of_query(request.query_string());
    let mut parameters = parameters.map_err(|err| client.malformed(&err))?;
    let grant: Option<Grant> = match parameters.ticket.take() {
        Some(ticket) => Some(redeem(&client.context, &ticket).await?),
        None => client.context.access.admit(request).await?,
    };
    client.grant.replace(grant);
    Ok((parameters != Parameters::default()).then_some(parameters))
}

/// Serves a connection whose socket was taken over.
async fn serve(taken: TakenSocket, mut connection: Connection) {
    let TakenSocket { io, received, head, peer, permit } = taken;
    connection.set_permit(permit);
    connection.receive(&received, Instant::now());
    serve_until_idle(io, connection, head, peer).await;
}

/// Serves a connection until it is closed, or until the reactor takes it. `out` is written first.
/// `peer` is kept until the connection is closed, for the permit of the limit per address.
async fn serve_until_idle(mut io: Socket, mut connection: Connection, out: Bytes, peer: Box<Peer>) {
    let is_plain = io.is_plain();
    match drive(&mut io, &mut connection, out, is_plain).await {
        Ok(Driven::Closed) => {}
        Ok(Driven::Idle) => {
            if let Some(Ok(io)) = io.into_plain().map(tokio::net::TcpStream::into_std) {
                park(io, connection, peer);
            }
        }
        Err(err) => tracing::debug!(error = %err, "a WebSocket failed"),
    }
}

/// Gives an idle connection to the reactor, which needs no task and no buffers for it.
fn park(io: TcpStream, connection: Connection, peer: Box<Peer>) {
    let reactor = Rc::clone(&connection.client().worker.reactor);
    let Some((parked, session, permit)) = connection.park() else { return };
    let give_back = GiveBack(Box::new(move |returned| resume(returned, parked, peer)));
    if let Err(err) = reactor.register_duplex(io, session, permit, give_back) {
        tracing::debug!(error = %err, "a WebSocket could not be given to the reactor");
    }
}

/// Continues with a connection that the reactor gives back. Most clients have only answered a ping,
/// so that the connection is idle again: the socket is read here, without a task.
fn resume(returned: Returned, parked: Parked, peer: Box<Peer>) {
    let Returned { io, session, rest, permit } = returned;
    let now = Instant::now();
    let mut connection = parked.resume(session, permit, now);
    let mut buffer = [0; READ_BYTES];
    match (&io).read(&mut buffer) {
        Ok(0) => return,
        Ok(len) => connection.receive(buffer.get(..len).unwrap_or_default(), now),
        Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
        Err(_) => return,
    }
    if rest.is_empty() && connection.is_idle() {
        return park(io, connection, peer);
    }
    match connection.client().worker.reactor.socket(io) {
        Ok(io) => drop(spawn(serve_until_idle(io, connection, rest, peer))),
        Err(err) => tracing::debug!(error = %err, "a WebSocket could not be continued"),
    }
}

/// Serves a connection over a stream of HTTP/2 until it is closed.
async fn serve_tunnel(mut io: Tunnel, mut connection: Connection) {
    if let Err(err) = drive(&mut io, &mut connection, Bytes::new(), false).await {
        tracing::debug!(error = %err, "a WebSocket over HTTP/2 failed");
    }
}
