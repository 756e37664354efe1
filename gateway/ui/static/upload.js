// Uploads that go on where they broke: in this page, and when the same file is chosen again later. Fields of forms that take files.
import { Refusal, element, pagesOf, refusalOf, refused, rememberName, say, showBar, sized, spoken } from "./page.js";

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
  const plain = name.replace(/ß/g, "ss").normalize("NFKD").replace(/\p{M}/gu, "").replace(/[^A-Za-z0-9._]+/g, "-");
  const [, stem, suffix] = plain.match(/^(.*?)(\.[A-Za-z0-9]{1,8})?$/);
  return [stem.replace(/^[-._]+|[-._]+$/g, "").slice(0, 60) || "file", suffix ?? ""];
}

/** Return random digits and letters. */
export function random(length) {
  return Array.from(crypto.getRandomValues(new Uint8Array(length)), (byte) => (byte % 36).toString(36)).join("");
}

/**
 * Upload a file and return its name for requests. The same file has the same name: what is there already is not sent again.
 * `onProgress` is called with the bytes that are there. An AbortSignal ends the upload with an AbortError.
 */
export async function upload(file, onProgress, signal) {
  if (!file.size) throw new Refusal(`The file ${file.name} is empty.`, 0, "");
  const [stem, suffix] = plainName(file.name);
  const name = `uploads/${stem}-${mark(`${file.name}/${file.size}/${file.lastModified}`)}${suffix}`;
  rememberName(name, file.name);
  let there = await received(name);
  let failures = 0;
  while (!there.complete || there.bytes !== file.size) {
    signal?.throwIfAborted();
    const first = there.complete ? 0 : there.bytes;
    const last = Math.min(first + PIECE_BYTES, file.size);
    try {
      there = await send(name, file.slice(first, last), `bytes ${first}-${last - 1}/${file.size}`, (bytes) => onProgress(first + bytes), signal);
      failures = 0;
    } catch (problem) {
      signal?.throwIfAborted();
      failures += 1;
      const passing = !(problem instanceof Refusal) || problem.status === 0 || problem.status === 429 || problem.status >= 500;
      if (!passing || failures === ATTEMPTS) throw problem;
      await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** failures));
      there = await received(name);
    }
  }
  signal?.throwIfAborted();
  onProgress(file.size);
  return name;
}

async function received(name) {
  const entry = (await pagesOf("/v1/uploads", "uploads")).find((one) => one.name === name);
  return { bytes: Number(entry?.receivedBytes ?? 0), complete: entry?.complete ?? false };
}

/** Send a part of a file. Only XMLHttpRequest tells how much has left. */
function send(name, part, range, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    signal?.addEventListener("abort", () => {
      request.abort();
      reject(signal.reason);
    });
    request.open("PUT", `/v1/${name}`);
    request.setRequestHeader("Content-Range", range);
    request.upload.onprogress = (event) => onProgress(event.loaded);
    request.onerror = () => reject(new Refusal("The connection to the gateway broke during the upload.", 0, ""));
    request.onload = async () => {
      if (request.status !== 200) {
        reject(await refusalOf(new Response(request.responseText, { status: Math.max(request.status, 400) })));
        return;
      }
      const answer = JSON.parse(request.responseText);
      resolve({ bytes: Number(answer.receivedBytes), complete: answer.complete });
    };
    request.send(part);
  });
}

/** Upload a file, and show name, bytes and time left in a panel with a paragraph and a bar. Return its name for requests. */
export async function uploadShown(file, panel, signal) {
  const state = panel.querySelector("p");
  panel.hidden = false;
  try {
    const began = performance.now();
    let before = null;
    const name = await upload(file, (bytes) => {
      before ??= bytes;
      const seconds = (performance.now() - began) / 1000;
      const pace = (bytes - before) / Math.max(seconds, 0.1);
      const left = pace > 0 && seconds > 2 ? `, ${spoken((file.size - bytes) / pace)} left` : "";
      state.textContent = `${file.name}: ${sized(bytes)} of ${sized(file.size)}${left}`;
      // The bar goes when the gateway has answered.
      showBar(panel, Math.min(bytes / file.size, 0.99));
    }, signal);
    state.textContent = `${file.name}, ${sized(file.size)}`;
    showBar(panel, 1);
    say(`${file.name} is uploaded.`);
    return name;
  } catch (problem) {
    if (!signal?.aborted) state.textContent = `${file.name} was not uploaded. Choose the file again to go on.`;
    throw problem;
  }
}

/** Return the bar of the upload of a file. */
export function uploadBar(name) {
  return element("div", { className: "bar thin", role: "progressbar", "aria-label": `Upload of ${name}`, "aria-valuemin": 0, "aria-valuemax": 100 }, element("i"));
}

/**
 * Upload the file of a row: {uri, hasFailed, stop, panel}, of which `stop` is an AbortController. The row gets the `uri` or `hasFailed`,
 * and then `onChange` is called, unless the row is removed.
 */
export async function sendRow(row, file, onChange) {
  row.hasFailed = false;
  try {
    row.uri = await uploadShown(file, row.panel, row.stop.signal);
  } catch (problem) {
    if (row.stop.signal.aborted) return;
    row.hasFailed = true;
    refused(problem);
  }
  onChange();
}

/** Call `take` with the files that are chosen or dropped in an area of the class "drop". */
export function onFiles(area, take) {
  const input = area.querySelector("input");
  input.addEventListener("change", () => {
    const given = [...input.files];
    // A browser tells nothing of the same file again while the field holds the file.
    input.value = "";
    if (given.length) take(given);
  });
  for (const name of ["dragenter", "dragover"]) {
    area.addEventListener(name, (event) => {
      event.preventDefault();
      area.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) area.addEventListener(name, () => area.classList.remove("over"));
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) take(input.multiple ? [...event.dataTransfer.files] : [event.dataTransfer.files[0]]);
  });
}

// A file that misses the area to drop must not replace the page.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());

/**
 * Upload the files that are given in the field ID of templates/forms.html.j2 with `several`, one after the other, and list them.
 * `onChange` is called when a file is added, uploaded or removed. Return functions: `files()`, the files as {name, uri, key}, whose `uri`
 * is empty before the end of the upload and whose `key` tells files of one name apart; `clear()`, which removes all files and
 * returns what `restore(cleared)` lists again.
 */
export function fileList(id, onChange) {
  const list = document.querySelector(`#${id}-list`);
  let files = [];
  let turn = Promise.resolve();

  function remove(one) {
    one.stop.abort();
    files = files.filter((other) => other !== one);
    one.panel.remove();
    onChange();
  }

  function add(file) {
    const key = [file.name, file.size, file.lastModified].join("/");
    const again = files.find((one) => one.key === key || (one.hasFailed && one.name === file.name));
    if (again) remove(again);
    const button = element("button", { type: "button", className: "quiet small", "aria-label": `Remove ${file.name}` }, "Remove");
    const one = { name: file.name, uri: "", key, hasFailed: false, stop: new AbortController(), panel: element("li", {}, element("div", { className: "row" }, element("p", { className: "small" }, file.name), button), uploadBar(file.name)) };
    button.addEventListener("click", () => {
      remove(one);
      document.querySelector(`#${id}-file`).focus();
    });
    files.push(one);
    list.append(one.panel);
    turn = turn.then(() => files.includes(one) && sendRow(one, file, onChange));
  }

  onFiles(document.querySelector(`#${id}-drop`), (given) => {
    refused("");
    for (const file of given) add(file);
    onChange();
  });
  return {
    files: () => files.map(({ name, uri, key }) => ({ name, uri, key })),
    clear() {
      const cleared = files;
      cleared.forEach(remove);
      return cleared;
    },
    restore(cleared) {
      files = cleared;
      list.replaceChildren(...cleared.map(({ panel }) => panel));
      onChange();
    },
  };
}
