//! Sockets and the readiness of many of them.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::{
    event::epoll::{self, CreateFlags, Event, EventData, EventFlags},
    io::{Errno, ioctl_fionbio},
    net::{AddressFamily, RecvFlags, SendFlags, SocketType, bind, connect, socket, sockopt},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::{Error, Result, clock::timespec};

/// As many files as the system allows.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // If it is refused, the run says which stream failed.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Client sockets are spread over addresses, each of which has some 28,000 ports of its own:
/// closed ones take theirs for another minute.
const ADDRESSES: usize = 16;

/// A connection that does not block, from the address `127.0.0.2` or one above. To loopback a
/// connection is made within the call, unless the server's backlog is full.
pub fn dial(target: SocketAddr, number: usize) -> Result<OwnedFd> {
    let SocketAddr::V4(target) = target else { return Err("only IPv4 addresses".into()) };
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    if target.ip().is_loopback() {
        let from = Ipv4Addr::new(127, 0, 0, (2 + number % ADDRESSES) as u8);
        bind(&socket, &SocketAddrV4::new(from, 0))?;
    }
    connect(&socket, &target)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

/// The port of this end.
pub fn local_port(socket: &OwnedFd) -> Result<u16> {
    Ok(TcpStream::from(socket.try_clone()?).local_addr()?.port())
}

/// Reads what is there. None if there is nothing.
pub fn read(socket: &OwnedFd, buffer: &mut [u8]) -> Result<Option<usize>> {
    match rustix::net::recv(socket, &mut *buffer, RecvFlags::empty()) {
        Ok((length, _)) => Ok(Some(length)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(err) => Err(err.into()),
    }
}

/// Writes as much as the socket takes.
pub fn write(socket: &OwnedFd, bytes: &[u8]) -> Result<usize> {
    match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL) {
        Ok(length) => Ok(length),
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        Err(err) => Err(err.into()),
    }
}

/// Writes a request, which is small enough for a socket that is otherwise idle.
pub fn write_all(socket: &OwnedFd, bytes: &[u8]) -> Result<()> {
    let written = write(socket, bytes)?;
    if written < bytes.len() {
        let err = std::io::Error::new(ErrorKind::WouldBlock, "the socket did not take a request");
        return Err(Error::from(err));
    }
    Ok(())
}

/// Level-triggered readiness.
#[derive(Debug)]
pub struct Poll {
    epoll: OwnedFd,
}

/// How many are handled before the schedule is looked at again.
const EVENTS: usize = 256;

impl Poll {
    pub fn new() -> Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    pub fn add(&self, socket: &OwnedFd, token: u64, flags: EventFlags) -> Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(token), flags)?)
    }

    pub fn modify(&self, socket: &OwnedFd, token: u64, flags: EventFlags) -> Result<()> {
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(token), flags)?)
    }

    pub fn remove(&self, socket: &OwnedFd) -> Result<()> {
        Ok(epoll::delete(&self.epoll, socket)?)
    }

    /// Waits; `None` waits for as long as it takes.
    pub fn wait(&self, ready: &mut Ready, timeout: Option<Duration>) -> Result<()> {
        let timeout = timeout.map(timespec);
        ready.0.clear();
        ready.0.reserve(EVENTS);
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut ready.0),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(err) => Err(err.into()),
        }
    }
}

/// What is ready.
#[derive(Default)]
pub struct Ready(Vec<Event>);

impl Ready {
    /// Token and flags of each.
    pub fn iter(&self) -> impl Iterator<Item = (u64, EventFlags)> + '_ {
        self.0.iter().map(|event| (event.data.u64(), event.flags))
    }
}
