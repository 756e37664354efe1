// Lanes of the time line: frames by reason, the opening of the mouth, and waveforms, each on a canvas.
import { reasonOf } from "./operations.js";

const RATE_HZ = 8000;
const LARGEST_BYTES = 200 << 20;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Return the context of a canvas in the sharpness of the screen, empty, with its width and height in CSS pixels. */
function cleared(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return { context, width, height };
}

export function drawSpans(canvas, spans, numFrames) {
  const { context, width, height } = cleared(canvas);
  for (const span of spans) {
    const left = (Number(span.firstFrame) / numFrames) * width;
    // A single frame of a long video is still seen.
    const right = Math.max(left + 2, ((Number(span.firstFrame) + Number(span.numFrames)) / numFrames) * width);
    context.fillStyle = reasonOf(span.reason).colour;
    context.fillRect(left, 0, right - left, height);
  }
}

export function drawOpening(canvas, mouths, numFrames) {
  const { context, width, height } = cleared(canvas);
  const open = mouths.filter((mouth) => mouth.opening !== undefined);
  const most = Math.max(1, ...open.map((mouth) => mouth.opening));
  const apart = mouths.length > 1 ? Number(mouths.at(-1).frameIndex) / (mouths.length - 1) : 1;
  context.strokeStyle = colour("--wave");
  context.lineWidth = 1.6;
  context.lineJoin = "round";
  context.beginPath();
  let before = -Infinity;
  for (const mouth of open) {
    const frame = Number(mouth.frameIndex);
    const x = ((frame + 0.5) / numFrames) * width;
    const y = height - 3 - (mouth.opening / most) * (height - 6);
    if (frame - before > 2 * apart + 1) context.moveTo(x, y);
    else context.lineTo(x, y);
    before = frame;
  }
  context.stroke();
}

/** Return the sound of a file as {peaks: [[low, high], ...], seconds}; null: the file has no sound that the browser can read. */
export async function readSound(url, columns = 1200) {
  const answer = await fetch(url);
  if (!answer.ok || Number(answer.headers.get("content-length") ?? 0) > LARGEST_BYTES) return null;
  let sound;
  try {
    sound = await new OfflineAudioContext(1, 1, RATE_HZ).decodeAudioData(await answer.arrayBuffer());
  } catch {
    return null;
  }
  const samples = sound.getChannelData(0);
  const peaks = [];
  for (let column = 0; column < columns; column += 1) {
    let [low, high] = [0, 0];
    const end = Math.ceil(((column + 1) * samples.length) / columns);
    for (let index = Math.floor((column * samples.length) / columns); index < end; index += 1) {
      low = Math.min(low, samples[index]);
      high = Math.max(high, samples[index]);
    }
    peaks.push([low, high]);
  }
  return { peaks, seconds: sound.duration };
}

/** Draw a waveform over `seconds` of time from `begin` seconds of the sound on, in the colour of a CSS property. */
export function drawWave(canvas, sound, seconds, name, begin = 0) {
  const { context, width, height } = cleared(canvas);
  context.fillStyle = colour(name);
  const loudest = Math.max(0.05, ...sound.peaks.map(([low, high]) => Math.max(-low, high)));
  const step = ((sound.seconds / seconds) * width) / sound.peaks.length;
  const left = (begin / seconds) * width;
  sound.peaks.forEach(([low, high], column) => {
    const top = (0.5 - (0.48 * high) / loudest) * height;
    const bottom = (0.5 - (0.48 * low) / loudest) * height;
    context.fillRect(column * step - left, top, Math.max(step + 0.3, 1), Math.max(bottom - top, 1));
  });
}
