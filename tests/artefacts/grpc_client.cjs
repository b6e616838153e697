// Subscribes with @grpc/grpc-js, and prints each record, and the code at the end, as a line of JSON.
//
//   node grpc_client.cjs NODE_MODULES PROTO_FOLDER HOST:PORT REQUEST
const [modules, folder, target, request] = process.argv.slice(2);
const grpc = require(`${modules}/@grpc/grpc-js`);
const loader = require(`${modules}/@grpc/proto-loader`);

const options = { includeDirs: [folder], longs: String, bytes: String, oneofs: true };
const definition = loader.loadSync("stream_events/v1/stream_events.proto", options);
const { StreamEvents } = grpc.loadPackageDefinition(definition).stream_events.v1;
const client = new StreamEvents(target, grpc.credentials.createInsecure(), {
  "grpc.max_receive_message_length": -1,
});

const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const call = client.subscribe(JSON.parse(request));
call.on("data", ({ record, ...fields }) => say({ [record]: fields[record] }));
call.on("error", (err) => say({ code: grpc.status[err.code] }));
