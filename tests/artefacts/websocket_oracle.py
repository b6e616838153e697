"""What wsproto, as a server, makes of a client's bytes, and what the gateway has to answer to it."""

import dataclasses
import json

import wsproto
from wsproto import events

HANDSHAKE = (b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
             b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")


@dataclasses.dataclass
class Answers:
    """What the server sends."""

    pongs: list = dataclasses.field(default_factory=list)
    # Of each command: the status of its `error`, and its `ref`.
    errors: list = dataclasses.field(default_factory=list)
    # The code of the close frame. None while the connection is open.
    close: int | None = None


def error_of(text):
    """The answer to a text message: 404 to the command of the tests, and 400 to all that is no command."""
    try:
        said = json.loads(text)
    except ValueError:
        return 400, None
    is_command = isinstance(said, dict) and said.get("type") == "unsubscribe"
    return (404, said["ref"]) if is_command else (400, None)


def judge(segments):
    """The events of wsproto in words, the answers that they ask for, and whether a message is incomplete."""
    server = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    server.receive_data(HANDSHAKE % b"/ws")
    assert isinstance(next(server.events()), events.Request)
    server.send(events.AcceptConnection())
    words, answers, message = [], Answers(), None
    for segment in segments:
        server.receive_data(segment)
        for event in server.events():
            match event:
                case events.Ping():
                    answers.pongs.append(bytes(event.payload))
                    words.append(f"ping {len(event.payload)}")
                case events.Pong():
                    words.append("pong")
                case events.TextMessage() | events.BytesMessage():
                    # Parts of frames are events of their own: join them.
                    message = event.data if message is None else message + event.data
                    if event.message_finished:
                        is_text = isinstance(event, events.TextMessage)
                        words.append(f"{'text' if is_text else 'binary'} {len(message)}")
                        answers.errors.append(error_of(message) if is_text else ("binary", None))
                        message = None
                case events.CloseConnection():
                    is_peers = server.state is wsproto.ConnectionState.REMOTE_CLOSING
                    code = int(event.code)
                    words.append(f"close {code}" if is_peers else f"fails with {code}: {event.reason}")
                    answers.close = code
                    return words, answers, False
    return words + (["incomplete"] if message is not None else []), answers, message is not None
