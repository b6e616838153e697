//! `grpc.reflection.v1.ServerReflection`: descriptions of the services, for clients without the
//! files in `proto/`. They are public, as those files are.

use std::{
    collections::HashMap,
    net::IpAddr,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_web::web;
use bytes::Bytes;
use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};
use tokio::time::{Instant, Sleep, sleep};

use super::{
    answer::{Ended, Messages},
    message::{Incoming, encoded},
    proto::{
        DESCRIPTORS,
        reflection::{
            ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
            ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
            server_reflection_request::MessageRequest as Asked,
            server_reflection_response::MessageResponse as Answer,
        },
    },
    status::{Code, Status},
};
use crate::stream::{StreamContext, TOO_OFTEN};

/// Names of all services. `v1alpha` has the same messages as `v1`, and older clients ask for it.
pub(super) const SERVICES: [&str; 4] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "stream_events.v1.StreamEvents",
];

/// Largest request, in bytes: names of files and symbols are short.
pub(super) const REQUEST_MAX_BYTES: usize = 4 * 1024;
/// Limit of the requests of a call. A client that lists everything needs some dozens.
const REQUESTS_MAX: usize = 1_000;
/// Time without a request after which a call ends.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Descriptions of the files, each encoded as a `FileDescriptorProto`.
#[derive(Default)]
struct Files {
    by_name: HashMap<String, Bytes>,
    by_symbol: HashMap<String, Bytes>,
}

static FILES: LazyLock<Files> = LazyLock::new(|| {
    // The unit test decodes the same bytes.
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default();
    let mut all = Files::default();
    files.file.iter().for_each(|file| all.add(file));
    all
});

impl Files {
    fn add(&mut self, file: &FileDescriptorProto) {
        let bytes: Bytes = file.encode_to_vec().into();
        let mut symbols = Vec::new();
        let package = file.package();
        file.message_type.iter().for_each(|message| add_message(&mut symbols, package, message));
        symbols.extend(file.enum_type.iter().map(|it| format!("{package}.{}", it.name())));
        for service in &file.service {
            let name = format!("{package}.{}", service.name());
            symbols.extend(service.method.iter().map(|it| format!("{name}.{}", it.name())));
            symbols.push(name);
        }
        self.by_symbol.extend(symbols.into_iter().map(|symbol| (symbol, bytes.clone())));
        self.by_name.insert(file.name().to_owned(), bytes);
    }

    /// Answers a request.
    fn answer(&self, asked: &Asked) -> Answer {
        let file = |file: Option<&Bytes>, name: &str| match file {
            Some(file) => Answer::FileDescriptorResponse(FileDescriptorResponse {
                file_descriptor_proto: vec![file.clone()],
            }),
            None => not_found(name),
        };
        match asked {
            Asked::FileByFilename(name) => file(self.by_name.get(name), name),
            Asked::FileContainingSymbol(name) => {
                file(self.by_symbol.get(name.trim_start_matches('.')), name)
            }
            Asked::FileContainingExtension(asked) => not_found(&asked.containing_type),
            Asked::AllExtensionNumbersOfType(name) if self.by_symbol.contains_key(name) => {
                Answer::AllExtensionNumbersResponse(ExtensionNumberResponse {
                    base_type_name: name.clone(),
                    extension_number: Vec::new(),
                })
            }
            Asked::AllExtensionNumbersOfType(name) => not_found(name),
            Asked::ListServices(_) => Answer::ListServicesResponse(ListServiceResponse {
                service: SERVICES.map(|name| ServiceResponse { name: name.to_owned() }).into(),
            }),
        }
    }
}

/// Adds the names of a message and of what is declared in it.
fn add_message(symbols: &mut Vec<String>, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    message.nested_type.iter().for_each(|nested| add_message(symbols, &name, nested));
    symbols.extend(message.enum_type.iter().map(|it| format!("{name}.{}", it.name())));
    symbols.push(name);
}

fn not_found(name: &str) -> Answer {
    let shown: String = name.chars().take(128).collect();
    let error_message = format!("{shown} is not described here");
    Answer::ErrorResponse(ErrorResponse { error_code: Code::NotFound as i32, error_message })
}

/// Call of `ServerReflectionInfo`: an answer for each request.
pub(super) struct Reflection {
    incoming: Incoming,
    context: web::Data<StreamContext>,
    address: Option<IpAddr>,
    requests: usize,
    silence: Pin<Box<Sleep>>,
}

impl Reflection {
    pub(super) fn new(
        incoming: Incoming,
        context: web::Data<StreamContext>,
        address: Option<IpAddr>,
    ) -> Self {
        let silence = Box::pin(sleep(SILENCE_MAX));
        Self { incoming, context, address, requests: 0, silence }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// Fails when the client asks too often.
    fn count(&mut self) -> Result<(), Status> {
        self.requests += 1;
        if REQUESTS_MAX < self.requests {
            let text = format!("a call has at most {REQUESTS_MAX} requests: begin another one");
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        self.context
            .requests
            .try_acquire(self.address)
            .map_err(|_| Status::new(Code::ResourceExhausted, TOO_OFTEN))
    }
}

impl Messages for Reflection {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Ended>> {
        let Poll::Ready(received) = self.incoming.poll::<ServerReflectionRequest>(cx) else {
            ready!(self.silence.as_mut().poll(cx));
            let text = format!("no request came for {} s", SILENCE_MAX.as_secs());
            return Poll::Ready(Err(Status::new(Code::DeadlineExceeded, text).into()));
        };
        let Some(request) = received.transpose()? else {
            return Poll::Ready(Err(Status::OK.into()));
        };
        self.count()?;
        self.silence.as_mut().reset(Instant::now() + SILENCE_MAX);
        let answer = match &request.message_request {
            Some(asked) => FILES.answer(asked),
            None => Answer::ErrorResponse(ErrorResponse {
                error_code: Code::InvalidArgument as i32,
                error_message: "the request asks for nothing".to_owned(),
            }),
        };
        Poll::Ready(Ok(encoded(&ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(answer),
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_and_each_file_is_described() {
        let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        let described = files.file.iter().flat_map(|file| {
            file.service.iter().map(|service| format!("{}.{}", file.package(), service.name()))
        });
        let mut described: Vec<_> = described.collect();
        described.sort();
        assert_eq!(described, SERVICES);
        for file in &files.file {
            assert!(FILES.by_name.contains_key(file.name()));
            // A client asks for these next.
            let imports = &file.dependency;
            assert!(imports.iter().all(|name| FILES.by_name.contains_key(name)), "{imports:?}");
        }
        for symbol in [
            "stream_events.v1.StreamEvents.Subscribe",
            "stream_events.v1.Event.AttributesEntry",
            "grpc.health.v1.HealthCheckResponse.ServingStatus",
        ] {
            assert!(FILES.by_symbol.contains_key(symbol), "{symbol}");
        }
    }
}
