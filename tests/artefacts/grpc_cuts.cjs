// Subscribes with @grpc/grpc-js, cuts the call after a random number of records, and resumes, each time at
// the next of the targets. Prints each event as a line of JSON, [id, data], and `null` after the last cut.
// The last call goes on to the event LAST.
//
//   node grpc_cuts.cjs NODE_MODULES PROTO_FOLDER HOST:PORT,HOST:PORT CUTS FIRST_ID LAST
const [modules, folder, list, count, first, last] = process.argv.slice(2);
const grpc = require(`${modules}/@grpc/grpc-js`);
const loader = require(`${modules}/@grpc/proto-loader`);

const options = { includeDirs: [folder], longs: String, bytes: Buffer, oneofs: true };
const definition = loader.loadSync("stream_events/v1/stream_events.proto", options);
const { StreamEvents } = grpc.loadPackageDefinition(definition).stream_events.v1;
const targets = list.split(",");
let cuts = 0;

function follow(lastEventId) {
  const target = targets[cuts % targets.length];
  const client = new StreamEvents(target, grpc.credentials.createInsecure());
  const call = client.subscribe({ topics: ["orders", "chats"], lastEventId });
  let left = cuts < count ? 1 + Math.floor(20 * Math.random()) : Infinity;
  let id = lastEventId;
  let isCut = false;
  call.on("error", (err) => {
    if (!isCut) {
      console.error(`${target}: ${err.message}`);
      process.exit(1);
    }
  });
  call.on("data", ({ record, ...fields }) => {
    if (isCut) return;
    if (record === "gap") throw new Error("a gap");
    id = fields[record].id ?? id;
    left -= 1;
    if (record === "event") {
      const data = fields.event.data.toString();
      console.log(JSON.stringify([id, data]));
      if (data === last) process.exit(0);
    }
    if (left <= 0) {
      isCut = true;
      cuts += 1;
      // Half of the cuts also end the connection.
      call.cancel();
      if (cuts % 4 < 2) client.close();
      if (cuts === Number(count)) console.log("null");
      follow(id);
    }
  });
}

follow(first);
