//! HTTP/1.1 as actix serves it: over TLS, unusual requests, and on the ops listener.

use std::{convert::Infallible, net::SocketAddr, rc::Rc, time::Duration};

use actix_http::{Extensions, HttpService, Request, Response, error::DispatchError};
use actix_service::{Service, ServiceFactory as _, fn_factory};
use actix_web::{body::BoxBody, http::KeepAlive};

use crate::net::connection::{Connection, Socket};

/// Makes actix' HTTP/1.1 service.
pub(super) async fn actix<S>(
    address: SocketAddr,
    dispatch: &Rc<S>,
) -> Result<
    Rc<impl Service<(Socket, Option<SocketAddr>), Response = (), Error = DispatchError> + use<S>>,
    (),
>
where
    S: Service<Request, Response = Response<BoxBody>, Error = Infallible> + 'static,
{
    let http1 = HttpService::build()
        // actix sets no timers for requests: `Reaper` closes idle and slow connections.
        .keep_alive(KeepAlive::Os)
        .client_request_timeout(Duration::ZERO)
        // A reader's FIN ends its stream at once: a closed browser tab sends it.
        .h1_allow_half_closed(false)
        .local_addr(address)
        .on_connect_ext(move |socket: &Socket, data: &mut Extensions| {
            data.insert::<Rc<Connection>>(Rc::clone(socket.connection()));
        })
        .h1(fn_factory({
            let dispatch = Rc::clone(dispatch);
            move || std::future::ready(Ok::<_, ()>(Rc::clone(&dispatch)))
        }));
    Ok(Rc::new(http1.new_service(()).await?))
}

/// Logs a connection's error. Clients cause most of them, so the level is debug.
pub(super) fn log_failure<E: std::fmt::Display>(ended: Result<(), E>) {
    if let Err(err) = ended {
        tracing::debug!(error = %err, "a connection failed");
    }
}
