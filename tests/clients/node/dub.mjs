// Send a video and speech to a gateway, dub the video, and fetch the result: docs/integrating.md, "Other languages".
import { createHash, randomUUID } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { DubResultSchema, DubService, OperationProgressSchema, OperationStep } from "./gen/dubstage/gateway/v1/gateway_pb.js";
import { MediaService } from "./gen/dubstage/gateway/v1/media_pb.js";
import { Operations } from "./gen/google/longrunning/operations_pb.js";

const transport = createGrpcTransport({ baseUrl: "http://localhost:50050" });
const [media, dubs, operations] = [MediaService, DubService, Operations].map((service) => createClient(service, transport));

async function* pieces(name, file) {
  const sha256 = createHash("sha256").update(file).digest("hex");
  yield { name: `uploads/${name}`, sizeBytes: BigInt(file.length), sha256 };
  for (let first = 0; first < file.length; first += 1 << 20) yield { data: file.subarray(first, first + (1 << 20)) };
}

const [footage, speech] = await Promise.all(
  ["shot.mp4", "speech.wav"].map((name) => media.uploadFile(pieces(name, readFileSync(name)))),
);

// A repeated call with the same requestId is the same dub.
const dub = { footageUri: footage.name, speechUri: speech.name, outputUri: "uploads/node.mp4" };
const request = { dub, requestId: randomUUID() };
let operation = await dubs.createDub(request);
while (!operation.done) {
  operation = await operations.waitOperation({ name: operation.name, timeout: { seconds: 2n } });
  const progress = operation.metadata && anyUnpack(operation.metadata, OperationProgressSchema);
  if (progress) console.log(`${Math.round(100 * progress.fraction)} % ${OperationStep[progress.step]}`);
}
if (operation.result.case === "error") throw new Error(operation.result.value.message);
const result = anyUnpack(operation.result.value, DubResultSchema);

const parts = [];
for await (const piece of media.downloadFile({ path: result.outputUri })) parts.push(piece.data);
writeFileSync("node.mp4", Buffer.concat(parts));
console.log(`${result.numDubbed} of ${result.numFrames} frames dubbed: node.mp4`);
