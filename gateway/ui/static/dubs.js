// The list of the user's dubs. It is asked for anew while a dub runs.
import { api, confirmed, day, during, element, refused, say, shownName, spoken } from "./page.js";
import { dubOf, isSent, mediaUrl, newestDubs, stepName } from "./operations.js";

const PAGE = 25;
const AGAIN_MS = 2000;
/** Moment of the video that its small picture shows, seconds. */
const PICTURE_S = 0.5;
const list = document.querySelector("#list");
const search = document.querySelector("#search");
let dubs = [];
let next = "";

/** Return the word of a dub that has ended; empty: the dub runs. */
function wordOf(dub) {
  if (dub.result?.undubbed) return "Not dubbed";
  return { done: dub.request.preview ? "Preview done" : "Done", failed: "Failed", cancelled: "Cancelled" }[dub.state] ?? "";
}

function stateOf(dub) {
  if (dub.state === "running") {
    const share = Math.round(100 * dub.fraction);
    const rest = dub.remaining === null ? stepName(dub.step) : `${spoken(dub.remaining)} left`;
    const fill = element("i");
    fill.style.width = `${share}%`;
    return [element("div", { className: "bar thin", "aria-hidden": "true" }, fill), element("span", { className: "small" }, `${share} %, ${rest}`)];
  }
  const look = dub.result?.undubbed ? "bad" : { done: "good", failed: "bad", cancelled: "soft" }[dub.state];
  return [element("span", { className: `badge ${look}` }, wordOf(dub))];
}

// A picture is read when the row comes into view: a list may have hundreds of rows.
const pictures = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    target.src = `${target.dataset.src}#t=${PICTURE_S}`;
    pictures.unobserve(target);
  }
});

function picture(dub) {
  const uri = dub.result?.outputUri ?? "";
  if (!isSent(uri)) return element("span", { className: "thumb" });
  const video = element("video", { className: "thumb", muted: true, playsinline: true, preload: "metadata", tabindex: "-1", "aria-hidden": "true", "data-src": mediaUrl(uri) });
  pictures.observe(video);
  return video;
}

function forget(dub) {
  dubs = dubs.filter((one) => one.name !== dub.name);
  rows.delete(dub.name);
}

async function remove(dub, button) {
  const texts = ["The dub leaves this list, with its request and its result.", dub.result ? "The video stays where it lies." : ""].filter(Boolean);
  if (!(await confirmed(`Remove the dub of ${shownName(dub.request.footageUri)} from the list?`, texts, "Remove"))) return;
  await during(button, async () => {
    try {
      await api("DELETE", `/v1/${dub.name}`);
    } catch (problem) {
      // Another page has removed the dub meanwhile.
      if (problem.status !== 404) throw problem;
    }
    forget(dub);
    if (!dubs.length && next) await load();
    draw();
    search.focus();
    say("The dub is removed from the list.");
  });
}

/** Row of a dub by its name, with the dub that the row shows: rows of dubs that have not changed keep their pictures. */
const rows = new Map();
function rowOf(dub) {
  const drawn = rows.get(dub.name);
  if (drawn?.dub === dub) return drawn.row;
  const fresh = row(dub);
  rows.set(dub.name, { dub, row: fresh });
  return fresh;
}

const words = (dub) => {
  const { footageUri, speechUri, actor, project, language } = dub.request;
  const shown = [shownName(footageUri), speechUri ? shownName(speechUri) : "own sound", actor, project, language, dub.state, wordOf(dub)];
  return shown.join(" ").toLowerCase();
};
const sought = (dub) => search.value.toLowerCase().split(/\s+/).every((word) => words(dub).includes(word));

function row(dub) {
  const dubbed = dub.result ? `${dub.result.numDubbed} of ${dub.result.numFrames}` : "";
  return element(
    "tr",
    {},
    element("td", { className: "shown" }, picture(dub)),
    element("td", {}, element("a", { href: `/ui/dubs/${dub.id}` }, shownName(dub.request.footageUri))),
    element("td", {}, dub.request.speechUri ? shownName(dub.request.speechUri) : element("span", { className: "soft" }, "own sound")),
    element("td", { className: "soft" }, day(dub.created)),
    element("td", {}, stateOf(dub)),
    element("td", { className: "soft" }, dubbed),
    element("td", {}, dub.ended ? element("button", { className: "quiet small", "aria-label": `Remove the dub of ${shownName(dub.request.footageUri)}`, onclick: (event) => remove(dub, event.currentTarget) }, "Remove") : null),
  );
}

function draw() {
  search.parentElement.hidden = !dubs.length && !next;
  if (!dubs.length && !next) {
    list.replaceChildren(
      element(
        "div",
        { className: "empty" },
        element("h2", {}, "No dubs yet"),
        element("p", { className: "soft" }, "Give footage and new speech, and see the same person say it."),
        element("a", { className: "button primary", href: "/ui/new" }, "Make the first dub"),
      ),
    );
    return;
  }
  const head = ["Picture", "Footage", "New speech", "Begun", "State", "Frames dubbed", "Remove"].map((text) => element("th", { scope: "col" }, text));
  const shown = dubs.filter(sought);
  // A row that moves loses the keyboard's focus.
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  list.replaceChildren(
    element(
      "table",
      { className: "stacked" },
      element("thead", {}, element("tr", {}, head)),
      element("tbody", {}, shown.map(rowOf)),
    ),
    ...(shown.length ? [] : [element("p", { className: "soft" }, next ? "None of the dubs shown so far: earlier dubs may fit." : "No dub fits.")]),
    ...(next ? [element("p", { className: "row end" }, element("button", { onclick: (event) => during(event.currentTarget, load) }, "Show earlier dubs"))] : []),
  );
  if (focused?.isConnected) focused.focus();
}

/** Add the next page of dubs. */
async function load() {
  const page = await newestDubs(PAGE, next);
  dubs.push(...page.dubs);
  next = page.token;
  draw();
}

/** Return the operation of a dub as it is now; null: another page has removed the dub. */
async function stateNow(dub) {
  try {
    return await api("GET", `/v1/${dub.name}`);
  } catch (problem) {
    if (problem.status === 404) return null;
    throw problem;
  }
}

async function follow() {
  let outage = false;
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    const running = dubs.filter((dub) => !dub.ended);
    if (document.hidden || !running.length) continue;
    try {
      const now = await Promise.all(running.map(stateNow));
      const changed = new Map(now.filter(Boolean).map((operation) => [operation.name, dubOf(operation)]));
      for (const dub of running.filter((_, index) => !now[index])) forget(dub);
      dubs = dubs.map((dub) => changed.get(dub.name) ?? dub);
      if (outage) refused("");
      outage = false;
      draw();
    } catch (problem) {
      outage = true;
      refused(problem);
    }
  }
}

search.addEventListener("input", draw);

try {
  await load();
  await follow();
} catch (problem) {
  refused(problem);
}
