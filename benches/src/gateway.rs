//! A gateway in this process, open to all, for what has to see inside of it or to start it often.

use std::{net::SocketAddr, thread};

use stream_events::{
    config::{Config, Mode, Texts},
    server::{self, Files, Listeners},
};

use crate::Result;

/// Starts it on a port and a thread of its own. It listens when this returns, and ends with the
/// process.
pub fn start(settings: &[(&'static str, &str)]) -> Result<SocketAddr> {
    let open = [
        ("listen", "127.0.0.1:0"),
        ("ops-listen", "off"),
        ("push-auth", "none"),
        ("read-auth", "anonymous"),
    ];
    let all = open.iter().chain(settings);
    let texts: Texts = all.map(|(flag, text)| (*flag, vec![(*text).to_owned()])).collect();
    let config = Config::from_texts(Mode::Serve, &texts, None)?;
    let (files, listeners) = (Files::load(&config)?, Listeners::bind(&config)?);
    let address = listeners.public.local_addr()?;
    thread::spawn(move || {
        let gateway = server::run(config, files, listeners, std::future::pending());
        if let Err(err) = actix_web::rt::System::new().block_on(gateway) {
            eprintln!("the gateway: {err}");
        }
    });
    Ok(address)
}
