// What all pages share: calls of the gateway, nodes made from text, and sentences for the user.

/** Sentence of the gateway about a call that it refused. */
export class Refusal extends Error {
  /** @param {string} message  @param {number} status status of HTTP; 0: the gateway cannot be reached  @param {string} field */
  constructor(message, status, field) {
    super(message);
    this.status = status;
    this.field = field;
  }
}

const AWAY = "The gateway cannot be reached. It may have stopped: start it again, or check the network.";

/** Key of the browser's storage for the names that the user's files had: [[upload, name of the file]], the newest last. */
const NAMES_KEY = "dubstage-names";
const MOST_NAMES = 500;
/** Matches the name of an upload, whose last ten letters and digits before the suffix are the mark of the page (upload.js). */
const UPLOAD = /uploads\/([A-Za-z0-9_-][A-Za-z0-9._-]*)/g;
const MARK = /-[0-9a-z]{10}(\.[A-Za-z0-9]{1,8})?$/;

function givenNames() {
  try {
    return new Map(JSON.parse(localStorage.getItem(NAMES_KEY) ?? "[]"));
  } catch {
    // Another program wrote the entry, or the browser keeps nothing.
    return new Map();
  }
}

/** Remember the name of the user's file that an upload was made from. */
export function rememberName(upload, name) {
  const names = givenNames();
  names.delete(upload);
  names.set(upload, name);
  try {
    localStorage.setItem(NAMES_KEY, JSON.stringify([...names].slice(-MOST_NAMES)));
  } catch {
    // The browser keeps nothing: names are those of the uploads, without their marks.
  }
}

/** Return the name that the user knows a file by: of an upload that of the user's file, of a dub that without the mark of the page. */
export function shownName(uri) {
  const marked = uri.startsWith("uploads/") || /-(dub|preview)-[0-9a-z]{10}(\.\w+)?$/.test(uri);
  return givenNames().get(uri) ?? (marked ? lastPart(uri).replace(MARK, "$1") : lastPart(uri));
}

/** Return a sentence of the gateway with the names of the user's files in place of those of uploads. */
export function withUsersNames(text) {
  const named = text.replaceAll(UPLOAD, (upload) => {
    // A full stop behind the name ends the sentence.
    const stop = upload.match(/\.*$/)[0];
    return `${shownName(upload.slice(0, upload.length - stop.length))}${stop}`;
  });
  // Some sentences name a file without its folder.
  return [...givenNames()].reduce((sentence, [upload, name]) => sentence.replaceAll(lastPart(upload), () => name), named);
}

/** Return the refusal of an error in JSON: of an answer, or of an operation. */
export function refusalIn(error, status) {
  const details = error.details ?? [];
  const reason = details.find((detail) => detail.reason)?.reason ?? "";
  // A refusal by consent names no field.
  const field = details.flatMap((detail) => detail.fieldViolations ?? [])[0]?.field ?? (reason.startsWith("CONSENT_") ? `consent ${reason}` : "");
  // Some refusals name their line in the sentence alone.
  const [line] = error.message.match(/^lines\[\d+\](?=: )/) ?? ["lines"];
  return new Refusal(capitalised(withUsersNames(error.message)), status, field.replace(/^dub\.lines\./, `dub.${line}.`));
}

/** Return the refusal of an answer that is an error. */
export async function refusalOf(answer) {
  let error = {};
  try {
    error = (await answer.json()).error ?? {};
  } catch {
    // The answer is no JSON, such as that of a proxy.
  }
  return refusalIn({ ...error, message: error.message || `The gateway answers with the status ${answer.status}.` }, answer.status);
}

/** Call a route of the gateway and return its JSON. Throws a Refusal. A session that has ended leads to the sign-in. */
export async function api(verb, path, body, signal) {
  let answer;
  try {
    answer = await fetch(path, {
      method: verb,
      signal,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new Refusal(AWAY, 0, "");
  }
  if (answer.status === 401) {
    location.assign(`/ui/sign-in?next=${encodeURIComponent(location.pathname)}`);
    await new Promise(() => {});
  }
  if (!answer.ok) throw await refusalOf(answer);
  return answer.json();
}

/** Return one page of a list as {entries, token}: `field` is the name of the entries, and `query` has further fields of the request. */
export async function pageOf(path, field, query = {}) {
  const page = await api("GET", `${path}?${new URLSearchParams(query)}`);
  return { entries: page[field], token: page.nextPageToken };
}

/** Return all entries of a list. */
export async function pagesOf(path, field) {
  const entries = [];
  let token = "";
  do {
    const page = await pageOf(path, field, { pageSize: 1000, pageToken: token });
    entries.push(...page.entries);
    token = page.token;
  } while (token);
  return entries;
}

/** Return the node with an id; null: the page has none. */
export const at = (id) => document.querySelector(`#${id}`);

/**
 * Return a node. `content` is text or nodes; text is never markup. A property that begins with "on" is a listener, "data" and "aria-..."
 * are attributes, and null leaves a property out.
 */
export function element(name, properties = {}, ...content) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key === "className" ? "class" : key, value === true ? "" : value);
  }
  node.append(...content.flat(Infinity).filter((part) => part !== null && part !== undefined && part !== false));
  return node;
}

/** Show a sentence at the top of the page; empty: remove it. */
export function refused(problem) {
  const banner = document.querySelector("#refusal");
  const text = problem instanceof Error ? problem.message : problem;
  banner.textContent = text;
  banner.hidden = !text;
  if (text) banner.scrollIntoView({ block: "nearest" });
  if (problem instanceof Error && !(problem instanceof Refusal)) console.error(problem);
}

/** Return the fields of a form's control: those of `data-field`, otherwise that of its name, such as encodeQuality. */
const fieldsOf = (control) => (control.dataset.field ?? control.getAttribute("name").replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)).split(" ");

/** Return the shown control of a form for the field of a refusal: of a line of its own first. With `wider`, also for the message that the field is part of. */
function controlOf(form, field, wider = false) {
  const own = field.split(" ").reverse().map((name) => name.replace(/^dub\./, ""));
  const every = own.map((name) => name.replace(/\[\d+\]|\.\d+/g, ""));
  const parents = wider ? every.map((name) => name.replace(/\.[^.]*$/, "")) : [];
  const shown = [...form.querySelectorAll("[data-field], [name]")].filter((control) => !control.closest("[hidden]"));
  const has = (name) => shown.find((control) => name && fieldsOf(control).includes(name));
  return [...own, ...every, ...parents].map(has).find(Boolean);
}

/** Return the words that a form has for a field; empty: the form has no control for the field. */
export function labelOf(form, field) {
  const control = controlOf(form, field);
  if (!control) return "";
  const texts = [...(control.labels?.[0]?.childNodes ?? [])].filter((node) => node.nodeType === Node.TEXT_NODE);
  const label = control.dataset.label ?? control.getAttribute("aria-label") ?? texts.map((node) => node.textContent).join(" ");
  return label.trim().replace(/:$/, "");
}

/** Return the sentence of a refusal, and whether the name of its field stood before the sentence: {text, isNamed}. */
function sentenceOf(problem) {
  const own = problem.field.replace(/^dub\./, "");
  // Some sentences name the line whose field is wrong.
  const names = [problem.field, own, own.replace(/\.[^.]*$/, "")].map((name) => `${name}: `.toLowerCase());
  const before = problem.field && names.find((name) => problem.message.toLowerCase().startsWith(name));
  const text = (before ? capitalised(problem.message.slice(before.length)) : problem.message).replace(/\b(?:dub\.)?lines\[(\d+)\]/g, (_, index) => `line ${Number(index) + 1}`);
  return { isNamed: Boolean(before), text };
}

/** Return the sentence of a refusal with the form's words for the field in place of the field's name. */
export function inWordsOf(form, problem) {
  const { text, isNamed } = sentenceOf(problem);
  const label = isNamed && labelOf(form, problem.field);
  return label ? `${label}: ${text}` : text;
}

/**
 * Mark the control of a form whose `data-field` or name is the field of a refusal, until the user changes the control or sends the form.
 * Return {control, clear}, of which `clear()` removes the mark; null: the form has no such control.
 */
export function marked(form, problem) {
  const control = problem instanceof Refusal ? controlOf(form, problem.field, true) : undefined;
  if (!control) return null;
  // At the control, the sentence needs no name of the field.
  const note = element("small", { id: `problem-${control.id}`, className: "bad", role: "alert" }, sentenceOf(problem).text);
  const until = new AbortController();
  // A further refusal takes the place of this one.
  control.dispatchEvent(new Event("refused"));
  const described = control.getAttribute("aria-describedby") ?? "";
  const clear = () => {
    until.abort();
    note.remove();
    control.removeAttribute("aria-invalid");
    control.setAttribute("aria-describedby", described);
  };
  control.setAttribute("aria-describedby", `${described} ${note.id}`.trim());
  // A group of a file that is uploaded already has no value of its own.
  if (control.matches("input, select, textarea")) control.setAttribute("aria-invalid", "true");
  (control.closest(".drop") ?? control).after(note);
  for (const name of ["input", "change", "refused"]) control.addEventListener(name, clear, { signal: until.signal });
  form.addEventListener("submit", clear, { signal: until.signal, capture: true });
  return { control, clear };
}

/** Show a refusal at its control as `marked`, and move there; without such a control at the top of the page. */
export function refusedAt(form, problem) {
  const mark = marked(form, problem);
  if (!mark) {
    refused(problem);
    return;
  }
  for (let details = mark.control.closest("details"); details; details = details.parentElement.closest("details")) details.open = true;
  mark.control.focus();
}

/** Show a share, 0 to 1, in the bar of a panel. A full bar is hidden. */
export function showBar(panel, share) {
  const bar = panel.querySelector(".bar");
  bar.setAttribute("aria-valuenow", Math.round(100 * share));
  bar.firstElementChild.style.width = `${100 * share}%`;
  bar.hidden = share >= 1;
}

/** Return rows of a table of facts from pairs of name and value. Facts without a value are left out. */
export function factRows(facts) {
  return facts
    .filter(([, value]) => value !== "" && value !== undefined && value !== null)
    .map(([name, value]) => element("tr", {}, element("th", { scope: "row", className: "soft" }, name), element("td", {}, value)));
}

/** Tell a sentence to users of screen readers. */
export function say(text) {
  document.querySelector("#said").textContent = text;
}

/** Run work of a button: the button is off meanwhile, and a refusal is shown. */
export async function during(button, work) {
  refused("");
  button.disabled = true;
  try {
    return await work();
  } catch (problem) {
    refused(problem);
    return undefined;
  } finally {
    button.disabled = false;
  }
}

/** Show a dialog with a question. Resolve to whether the user confirms. */
export function confirmed(title, text, action) {
  const dialog = element(
    "dialog",
    { "aria-labelledby": "question" },
    element("h2", { id: "question" }, title),
    text.map((line) => element("p", {}, line)),
    element(
      "form",
      { method: "dialog", className: "row end" },
      element("button", { value: "no", autofocus: true }, "Keep"),
      element("button", { value: "yes", className: "danger" }, action),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
  });
}

/** Return the id of a resource for a name that the user gives: small letters, digits and inner hyphens. Empty: the name has none of these. */
export function idFor(name, longest) {
  const plain = name.replace(/ß/g, "ss").normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase().replace(/[^a-z0-9]+/g, "-");
  return plain.replace(/^-/, "").slice(0, longest).replace(/-$/, "");
}

/** Return an id of a request, a UUID: a call that broke and is sent again begins no second operation. */
export function newRequestId() {
  const hex = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4}).(.{3}).(.{3})(.{12})$/, "$1-$2-4$3-a$4-$5");
}

/** Return a sentence with a capital letter. What begins with a name stays: of a file, a path or a field, or in quotes. */
export function capitalised(text) {
  const isName = /^["'`“‘«]|^\S+[./\\_[]\w/.test(text) || [...givenNames().values()].some((name) => text.startsWith(name));
  return isName ? text : text.charAt(0).toUpperCase() + text.slice(1);
}

/** Return seconds of a duration in JSON, such as "1.5s". */
export const secondsOf = (duration) => Number.parseFloat(duration ?? "0");

/** Return seconds as words: "12 s", "3 min 20 s", "2 h 5 min". */
export function spoken(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** Return bytes as words. */
export function sized(bytes) {
  const units = ["bytes", "KB", "MB", "GB", "TB"];
  let value = Number(bytes);
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** Return a time in the user's words; empty for an empty text. */
export function day(text) {
  if (!text) return "";
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? text : time.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

/** Return the last part of a path. */
export const lastPart = (path) => path.split("/").pop();
