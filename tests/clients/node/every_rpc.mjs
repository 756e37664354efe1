// Call every RPC once with an empty request, and print the status of each as JSON. Arguments: SERVER=PORT ...
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import * as audio from "./gen/dubstage/audio/v1/audio_pb.js";
import * as face from "./gen/dubstage/face/v1/face_pb.js";
import * as batch from "./gen/dubstage/gateway/v1/batch_pb.js";
import * as gateway from "./gen/dubstage/gateway/v1/gateway_pb.js";
import * as media from "./gen/dubstage/gateway/v1/media_pb.js";
import * as webhook from "./gen/dubstage/gateway/v1/webhook_pb.js";
import * as motion from "./gen/dubstage/motion/v1/motion_pb.js";
import * as render from "./gen/dubstage/render/v1/render_pb.js";
import * as texture from "./gen/dubstage/texture/v1/texture_pb.js";
import * as operations from "./gen/google/longrunning/operations_pb.js";

const ports = Object.fromEntries(process.argv.slice(2).map((argument) => argument.split("=")));
const services = [audio, face, motion, texture, render, gateway, batch, media, webhook, operations]
  .flatMap((module) => Object.values(module))
  .filter((described) => described.kind === "service");
const one = async function* () {
  yield {};
};

const found = {};
for (const service of services) {
  const name = service.typeName.replace("dubstage.", "").split(".")[0];
  const client = createClient(service, createGrpcTransport({ baseUrl: `http://127.0.0.1:${ports[name] ?? ports.gateway}` }));
  for (const method of service.methods) {
    const streams = ["client_streaming", "bidi_streaming"].includes(method.methodKind);
    try {
      const answer = client[method.localName](streams ? one() : {}, { timeoutMs: 30_000 });
      if (["server_streaming", "bidi_streaming"].includes(method.methodKind)) for await (const _ of answer);
      else await answer;
      found[`${service.typeName}/${method.name}`] = "OK";
    } catch (error) {
      found[`${service.typeName}/${method.name}`] = Code[ConnectError.from(error).code];
    }
  }
}
console.log(JSON.stringify(found));
