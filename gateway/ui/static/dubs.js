// The list of the user's dubs. It is asked for anew while a dub runs.
import { api, day, during, element, refused, shownName, spoken } from "./page.js";
import { dubOf, newestDubs, stepName } from "./operations.js";

const PAGE = 25;
const AGAIN_MS = 2000;
const list = document.querySelector("#list");
let found = [];
let next = "";

function stateOf(dub) {
  if (dub.state === "running") {
    const share = Math.round(100 * dub.fraction);
    const rest = dub.remaining === null ? stepName(dub.step) : `${spoken(dub.remaining)} left`;
    const fill = element("i");
    fill.style.width = `${share}%`;
    return [element("div", { className: "bar thin", "aria-hidden": "true" }, fill), element("span", { className: "small" }, `${share} %, ${rest}`)];
  }
  const looks = { done: ["good", "Done"], failed: ["bad", "Failed"], cancelled: ["soft", "Cancelled"] };
  let [look, text] = looks[dub.state];
  if (dub.result?.undubbed) [look, text] = ["bad", "Not dubbed"];
  return [element("span", { className: `badge ${look}` }, text)];
}

function row(dub) {
  const dubbed = dub.result ? `${dub.result.numDubbed} of ${dub.result.numFrames}` : "";
  return element(
    "tr",
    {},
    element("td", {}, element("a", { href: `/ui/dubs/${dub.id}` }, shownName(dub.request.footageUri))),
    element("td", {}, dub.request.speechUri ? shownName(dub.request.speechUri) : element("span", { className: "soft" }, "own sound")),
    element("td", { className: "soft" }, day(dub.created)),
    element("td", {}, stateOf(dub)),
    element("td", { className: "soft" }, dubbed),
  );
}

function draw() {
  if (!found.length) {
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
  const head = ["Footage", "New speech", "Begun", "State", "Frames dubbed"].map((text) => element("th", { scope: "col" }, text));
  list.replaceChildren(
    element(
      "table",
      { className: "stacked" },
      element("thead", {}, element("tr", {}, head)),
      element("tbody", {}, found.map(row)),
    ),
    ...(next ? [element("p", { className: "row end" }, element("button", { onclick: (event) => during(event.currentTarget, load) }, "Show earlier dubs"))] : []),
  );
}

/** Add the next page of dubs. */
async function load() {
  const page = await newestDubs(PAGE, next);
  found.push(...page.dubs);
  next = page.token;
  draw();
}

async function follow() {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    const running = found.filter((dub) => !dub.ended);
    if (document.hidden || !running.length) continue;
    try {
      const now = await Promise.all(running.map((dub) => api("GET", `/v1/${dub.name}`)));
      const changed = new Map(now.map((operation) => [operation.name, dubOf(operation)]));
      found = found.map((dub) => changed.get(dub.name) ?? dub);
      refused("");
      draw();
    } catch (problem) {
      refused(problem);
    }
  }
}

try {
  await load();
  await follow();
} catch (problem) {
  refused(problem);
}
