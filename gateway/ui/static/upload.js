// Uploads that go on where they broke: in this page, and when the same file is chosen again later.
import { Refusal, pagesOf, refusalOf, rememberName } from "./page.js";

const PIECE_BYTES = 8 << 20;
const ATTEMPTS = 6;

/** Return 10 digits and letters that follow from a text. Web Crypto's digests are there for https and this machine alone. */
function mark(text) {
  let [first, second] = [1, 7];
  for (const character of text) {
    first = (first * 31 + character.codePointAt(0)) % 36 ** 5;
    second = (second * 131 + character.codePointAt(0)) % 36 ** 5;
  }
  return [first, second].map((part) => part.toString(36).padStart(5, "0")).join("");
}

/** Return the name of a file without characters that the gateway refuses, as [stem, suffix]. */
export function plainName(name) {
  const plain = name.normalize("NFKD").replace(/[^A-Za-z0-9._]+/g, "-");
  const [, stem, suffix] = plain.match(/^(.*?)(\.[A-Za-z0-9]{1,8})?$/);
  return [stem.replace(/^[-._]+|[-._]+$/g, "").slice(0, 60) || "file", suffix ?? ""];
}

/** Return random digits and letters. */
export function random(length) {
  return Array.from(crypto.getRandomValues(new Uint8Array(length)), (byte) => (byte % 36).toString(36)).join("");
}

/**
 * Upload a file and return its name for requests. The same file has the same name: what is there already is not sent again.
 * `onProgress` is called with the bytes that are there.
 */
export async function upload(file, onProgress) {
  if (!file.size) throw new Refusal(`The file ${file.name} is empty.`, 0, "");
  const [stem, suffix] = plainName(file.name);
  const name = `uploads/${stem}-${mark(`${file.name}/${file.size}/${file.lastModified}`)}${suffix}`;
  rememberName(name, file.name);
  let there = await received(name);
  let failures = 0;
  while (!there.complete || there.bytes !== file.size) {
    const first = there.complete ? 0 : there.bytes;
    const last = Math.min(first + PIECE_BYTES, file.size);
    try {
      there = await send(name, file.slice(first, last), `bytes ${first}-${last - 1}/${file.size}`, (bytes) => onProgress(first + bytes));
      failures = 0;
    } catch (problem) {
      failures += 1;
      const passing = !(problem instanceof Refusal) || problem.status === 0 || problem.status === 429 || problem.status >= 500;
      if (!passing || failures === ATTEMPTS) throw problem;
      await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** failures));
      there = await received(name);
    }
  }
  onProgress(file.size);
  return name;
}

async function received(name) {
  const found = (await pagesOf("/v1/uploads", "uploads")).find((one) => one.name === name);
  return { bytes: Number(found?.receivedBytes ?? 0), complete: found?.complete ?? false };
}

/** Send a part of a file. Only XMLHttpRequest tells how much has left. */
function send(name, part, range, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `/v1/${name}`);
    request.setRequestHeader("Content-Range", range);
    request.upload.onprogress = (event) => onProgress(event.loaded);
    request.onerror = () => reject(new Refusal("The connection to the gateway broke during the upload.", 0, ""));
    request.onload = async () => {
      if (request.status !== 200) {
        reject(await refusalOf(new Response(request.responseText, { status: Math.max(request.status, 400) })));
        return;
      }
      const found = JSON.parse(request.responseText);
      resolve({ bytes: Number(found.receivedBytes), complete: found.complete });
    };
    request.send(part);
  });
}
