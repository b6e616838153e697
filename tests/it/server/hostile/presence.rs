//! Hostile members of a topic.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use crate::{
    outlet::presence::{Member, who},
    support::{
        eventually,
        reader::{CASES, Reader},
        victim::Victim,
    },
};

const NAMES: usize = 10_000;

/// Opens a stream under a name, and closes it when its head is there.
fn visit(victim: &Victim, name: &str) {
    let mut socket = TcpStream::connect(victim.address).unwrap();
    let head =
        format!("GET /events?topic=lobby&presence=on&name={name} HTTP/1.1\r\nHost: a\r\n\r\n");
    socket.write_all(head.as_bytes()).unwrap();
    let mut status = [0; 12];
    socket.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
}

/// Ten thousand names come and go, each as long as can be. The list has a thousand of them. A
/// reader that does not read gets the list again, and not all that it missed.
#[test]
fn very_many_names_are_bounded_and_leave_again() {
    let victim = Victim::serve(&["--presence-grace", "4 s"]).calm();
    let slow = CASES[0].open_at(victim.address, "?topic=lobby&presence=on&name=slow");
    let mut reader = Member::open_at(victim.address, "reader");
    std::thread::scope(|scope| {
        for part in 0..4 {
            let victim = &victim;
            scope.spawn(move || {
                for n in (part..NAMES).step_by(4) {
                    visit(victim, &format!("{n:0255}"));
                }
            });
        }
    });
    let seen = who(victim.address);
    assert!(seen["members"].as_array().unwrap().len() <= 1_000);
    while reader.members.len() < 100 {
        reader.read();
    }
    reader.until(&["reader", "slow"]);
    let messages = Member::of(slow).until(&["reader", "slow"]);
    eprintln!("a slow reader got {messages} messages for {NAMES} names");
    // Readers that come later are members.
    let _alice = Member::open_at(victim.address, "alice");
    reader.until(&["alice", "reader", "slow"]);
    drop(reader);
    victim.has_recovered();
}

/// Names are text of strangers.
#[test]
fn hostile_names_are_text_and_nothing_else() {
    let victim = Victim::serve(&["--presence-grace", "1 s"]).calm();
    let mut reader = Member::open_at(victim.address, "reader");
    let names = [
        "%3Cscript%3Ealert(1)%3C/script%3E",
        "data:%20x",
        "%22%7D,%7B%22leave%22:%22reader",
        "%5C%22",
        "a%26b%3Dc",
        "%F0%9F%92%A9",
        "%E2%80%AEevil",
    ];
    for name in names {
        let visitor: Reader =
            CASES[1].open_at(victim.address, &format!("?topic=lobby&presence=on&name={name}"));
        while reader.members.len() < 2 {
            reader.read();
        }
        drop(visitor);
        reader.until(&["reader"]);
    }
    assert_eq!(reader.changes.len(), 2 * names.len());
    assert!(reader.changes.contains(&"+<script>alert(1)</script>".to_owned()));
    for bad in ["%0A", "a%0D%0Aid:%201", "%00", "%20", "%C2%85"] {
        let path = format!("/events?topic=lobby&presence=on&name={bad}");
        let answer = crate::support::http1::request(victim.address, "GET", &path, &[], b"");
        assert_eq!(answer.status, 400, "{bad}");
    }
    eventually("all have left", || {
        (who(victim.address)["members"].as_array().unwrap().len() == 1).then_some(())
    });
    victim.has_not_panicked();
}
