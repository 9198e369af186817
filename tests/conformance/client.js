// Calls gRPC methods by the .proto files alone: node client.js PROTOS ADDRESS < calls.json
//
// Reads [{service, method, application, request, items}], prints [{ok} or {code, details}] in their order. Bytes are
// base64 in both directions. Of a streaming reply at most `items` messages are waited for.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const DEADLINE_MS = 300_000;
const [protos, address] = process.argv.slice(2);

function protoFiles(folder) {
  return fs.readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const file = path.join(folder, entry.name);
    return entry.isDirectory() ? protoFiles(file) : file.endsWith(".proto") ? [file] : [];
  });
}

const definitions = grpc.loadPackageDefinition(
  loader.loadSync(protoFiles(protos), {
    includeDirs: [protos],
    keepCase: true,
    longs: Number,
    enums: String,
    bytes: String,
    defaults: true,
    oneofs: true,
  }),
);

function perform({ service, method, application, request, items }) {
  const Service = service.split(".").reduce((found, name) => found[name], definitions);
  const client = new Service(address, grpc.credentials.createInsecure(), {
    "grpc.max_receive_message_length": -1,
    "grpc.enable_http_proxy": 0,
  });
  const metadata = new grpc.Metadata();
  metadata.set("application", application);
  const options = { deadline: Date.now() + DEADLINE_MS };
  const failure = (error) => ({ code: error.code, details: error.details });
  return new Promise((resolve) => {
    const done = (answer) => {
      client.close();
      resolve(answer);
    };
    if (!Service.service[method].responseStream) {
      client[method](request, metadata, options, (error, reply) => done(error ? failure(error) : { ok: reply }));
      return;
    }
    const received = [];
    const stream = client[method](request, metadata, options);
    stream.on("data", (message) => {
      received.push(message);
      if (received.length === items) {
        done({ ok: received });
        stream.cancel();
      }
    });
    stream.on("end", () => done({ ok: received }));
    stream.on("error", (error) => done(failure(error)));
  });
}

async function main() {
  const answers = [];
  for (const call of JSON.parse(fs.readFileSync(0, "utf8"))) {
    answers.push(await perform(call));
  }
  process.stdout.write(JSON.stringify(answers));
}

main();
