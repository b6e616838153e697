// Drives npm's ws: `node websocket_client.cjs PATH_OF_WS URL`. Takes lines {"send": text}, {"ping": data} and
// {"close": code}; prints lines {"text": message}, {"pong": data} and {"closed": code}.
"use strict";
const [, , path, url] = process.argv;
const WebSocket = require(path);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const socket = new WebSocket(url);
socket.on("message", (data, isBinary) => say(isBinary ? { binary: data.length } : { text: data.toString() }));
socket.on("pong", (data) => say({ pong: data.toString() }));
socket.on("error", (error) => console.error(error));
socket.on("close", (code) => {
  say({ closed: code });
  process.exit();
});
const lines = require("node:readline").createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const asked = JSON.parse(line);
  if ("send" in asked) socket.send(asked.send);
  else if ("ping" in asked) socket.ping(asked.ping);
  else socket.close(asked.close);
});
lines.on("close", () => process.exit());
