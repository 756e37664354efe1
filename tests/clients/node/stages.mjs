// Call the five stages from Node: docs/integrating.md, "Each stage alone".
import { readFileSync } from "node:fs";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { AudioService, FeatureKind } from "./gen/dubstage/audio/v1/audio_pb.js";
import { DataType, FrameReason, ImageEncoding } from "./gen/dubstage/common/v1/common_pb.js";
import { FaceService } from "./gen/dubstage/face/v1/face_pb.js";
import { MotionService } from "./gen/dubstage/motion/v1/motion_pb.js";
import { RenderService } from "./gen/dubstage/render/v1/render_pb.js";
import { TextureService } from "./gen/dubstage/texture/v1/texture_pb.js";

const stage = (service, address) => createClient(service, createGrpcTransport({ baseUrl: `http://${address}` }));
const PAL = { num: 25n, den: 1n };
const timeline = { times: { case: "frameRate", value: PAL } };
const image = (data, encoding) => ({ width: 160, height: 160, encoding, data });

async function* stream(config, name, messages) {
  yield { payload: { case: "config", value: config } };
  for (const value of messages) yield { payload: { case: name, value } };
}

const all = async (replies) => {
  const found = [];
  for await (const reply of replies) found.push(reply);
  return found;
};

// Inputs: raw RGB frames of 352 x 288, and float32 samples.
const video = readFileSync("frames.rgb");
const size = 352 * 288 * 3;
const pictures = Array.from({ length: video.length / size }, (_, n) => video.subarray(n * size, (n + 1) * size));
const speech = readFileSync("speech.f32");

// Audio: half a second a message.
const chunks = [];
for (let first = 0; 4 * first < speech.length; first += 8000)
  chunks.push({ firstSample: BigInt(first), pcmF32: speech.subarray(4 * first, 4 * (first + 8000)) });
const kinds = [FeatureKind.MEL, FeatureKind.POSTERIORGRAM];
const audio = stage(AudioService, "localhost:50051");
const blocks = (await all(audio.extractFeatures(stream({ sampleRateHz: 16000, channels: 1, timeline, kinds }, "chunk", chunks)))).map(
  (reply) => reply.block,
);

// Face: the frames that show a face which can be dubbed.
const frames = pictures.map((data, n) => ({
  frameIndex: BigInt(n),
  image: { width: 352, height: 288, encoding: ImageEncoding.RGB8, data },
}));
const tracked = await all(stage(FaceService, "localhost:50052").track(stream({ timeline }, "frame", frames)));
const shown = tracked
  .flatMap((reply) => reply.frames)
  .flatMap((frame) => frame.faces.map((face) => ({ index: Number(frame.frameIndex), face })))
  .filter(({ face }) => face.reason === FrameReason.DUBBED);

// Motion: the person's style, then their mouth speaking.
const motion = stage(MotionService, "localhost:50053");
const count = BigInt(shown.length);
const { style } = await motion.encodeStyle({
  method: "ugc",
  mouthLandmarks: {
    dataType: DataType.FLOAT32,
    shape: [count, 59n, 3n],
    data: Buffer.concat(shown.map(({ face }) => face.mouthLandmarks.data)),
  },
  usable: { dataType: DataType.BOOL, shape: [count], data: new Uint8Array(shown.length).fill(1) },
  frameRate: PAL,
});
const config = { method: "ugc", style, featureRate: PAL, outputTimeline: timeline };
const mouths = (await all(motion.predictMotion(stream(config, "features", blocks)))).flatMap((reply) => reply.frames);

// Texture: the nearest pixels of each face's box, a bank of them, and the bank's textures warped to the wanted mouths.
function renderBox(picture, pose) {
  const [cos, sin, length] = [pose.rotation[0], pose.rotation[3], Math.sqrt(pose.rotation[0] ** 2 + pose.rotation[3] ** 2)];
  const within = (value, end) => Math.min(Math.max(Math.floor(value + 0.5), 0), end - 1);
  const box = Buffer.alloc(160 * 160 * 3);
  for (let row = 0; row < 160; row++)
    for (let column = 0; column < 160; column++) {
      const [across, down] = [column - 80, row - 64];
      const x = within(pose.translation[0] + (pose.scale * (cos * across - sin * down)) / length, 352);
      const y = within(pose.translation[1] + (pose.scale * (sin * across + cos * down)) / length, 288);
      picture.copy(box, (row * 160 + column) * 3, (y * 352 + x) * 3, (y * 352 + x) * 3 + 3);
    }
  return image(box, ImageEncoding.RGB8);
}
const boxes = shown.map(({ index, face }) => renderBox(pictures[index], face.pose));
const texture = stage(TextureService, "localhost:50054");
const enrolment = shown.map(({ index, face }, n) => ({
  frameIndex: BigInt(index),
  box: boxes[n],
  landmarks: face.landmarks,
  pose: face.pose,
}));
const { bank } = await texture.buildBank(stream({}, "frame", enrolment));
const wanted = mouths
  .slice(0, shown.length)
  .map((mouth, n) => ({ frameIndex: mouth.frameIndex, motion: mouth, pose: shown[n].face.pose }));
const warped = await all(texture.retrieveWarp(stream({ bank }, "frame", wanted)));

// Render: 255 in the mask is to be replaced.
const mask = Buffer.alloc(160 * 160);
for (let row = 36; row < 144; row++) mask.fill(255, row * 160 + 24, row * 160 + 136);
const conditioned = warped.map((reply, n) => ({
  frameIndex: reply.frameIndex,
  background: boxes[n],
  texture: reply.warped,
  mask: image(mask, ImageEncoding.GRAY8),
  boxLandmarks: reply.boxLandmarks,
}));
const rendered = await all(stage(RenderService, "localhost:50055").render(stream({ model: "ugc" }, "frame", conditioned)));
console.log(rendered.length, "boxes of", rendered[0].box.width, "x", rendered[0].box.height);
