// The shots of one batch: a page of 50, filtered and ordered by the gateway.
import { api, at, confirmed, day, during, element, refused, say, withUsersNames } from "./page.js";
import { decisionOf, shotId, stateOf } from "./reviews.js";

const PAGE = 50;
const AGAIN_MS = 4000;
const { batch } = at("name").dataset;
const path = `/v1/batches/${encodeURIComponent(batch)}`;
const query = new URLSearchParams(location.search);

at("order").value = query.get("order") ?? "RISK";
for (const name of ["review", "state", "assignee"]) at(name).value = query.get(name) ?? "";
at("marked").checked = query.has("marked");

/** Return the filters as a query of the gateway. */
function filters() {
  const wanted = new URLSearchParams({ orderBy: `SHOT_ORDER_${at("order").value}`, pageSize: PAGE, thumbnails: true });
  if (at("review").value) wanted.set("reviewStates", `REVIEW_STATE_${at("review").value}`);
  if (at("state").value) wanted.set("states", `SHOT_STATE_${at("state").value}`);
  if (at("assignee").value) wanted.set("assignee", at("assignee").value);
  if (at("marked").checked) wanted.set("toLookAt", true);
  if (query.get("page")) wanted.set("pageToken", query.get("page"));
  return wanted;
}

/** Return the filters as a query of this page. */
function ownQuery(page = "") {
  const own = new URLSearchParams();
  for (const name of ["order", "review", "state", "assignee"]) if (at(name).value) own.set(name, at(name).value);
  if (at("marked").checked) own.set("marked", "1");
  if (page) own.set("page", page);
  return own;
}

function card(shot) {
  const id = shotId(shot);
  const [look, state] = stateOf(shot);
  const [decided, decision] = decisionOf(shot.review);
  const why = withUsersNames(shot.look?.[0] ?? shot.error ?? "");
  return element(
    "li",
    {},
    shot.thumbnail ? element("img", { src: `data:image/jpeg;base64,${shot.thumbnail}`, alt: "", loading: "lazy" }) : element("div", { className: "none" }),
    element("h3", {}, element("a", { href: `/ui/batches/${encodeURIComponent(batch)}/shots/${encodeURIComponent(id)}?${ownQuery()}` }, id)),
    element("p", { className: "small" }, element("span", { className: look }, state), ` · risk ${(shot.risk ?? 0).toFixed(2)}`),
    element("p", { className: `small ${decided}` }, decision),
    why ? element("p", { className: "small soft why" }, why) : null,
  );
}

async function drawShots() {
  const page = await api("GET", `${path}/shots?${filters()}`);
  at("shots").replaceChildren(...page.shots.map(card));
  if (!page.shots.length) at("shots").replaceChildren(element("li", { className: "empty" }, "No shot fits these filters."));
  at("next").hidden = !page.nextPageToken;
  at("next").href = `?${ownQuery(page.nextPageToken)}`;
  at("first").hidden = !query.get("page");
  at("first").href = `?${ownQuery()}`;
  say(`${page.shots.length} shots`);
}

let ended = false;
async function drawCounts() {
  const answer = await api("GET", path);
  const progress = answer.progress ?? {};
  const tiles = [
    ["shots", answer.numShots],
    ["done", progress.numDone],
    ["failed", progress.numFailed],
    ["not dubbed", progress.numUndubbed],
    ["left", Number(progress.numWaiting) + Number(progress.numRunning)],
    ["approved", progress.numApproved],
    ["rejected", progress.numRejected],
    ["assigned", progress.numAssigned],
  ];
  ended = progress.fraction >= 1;
  at("about").textContent = [`Begun ${day(answer.createTime)}`, ...(answer.notes ?? [])].join(". ");
  at("counts").replaceChildren(...tiles.map(([name, count]) => element("div", { className: "tile" }, element("b", {}, String(count ?? 0)), element("span", {}, name))));
  at("retry").hidden = !Number(progress.numRejected);
}

at("filters").addEventListener("change", () => location.assign(`?${ownQuery()}`));
at("filters").addEventListener("submit", (event) => {
  event.preventDefault();
  location.assign(`?${ownQuery()}`);
});
at("retry").addEventListener("click", async () => {
  if (!(await confirmed("Dub the rejected shots again?", ["Their present videos are replaced."], "Dub again"))) return;
  await during(at("retry"), () => api("POST", `${path}:retry`, { rejected: true }));
  await Promise.all([drawCounts(), drawShots()]).catch(refused);
});

try {
  await Promise.all([drawCounts(), drawShots()]);
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    if (document.hidden || ended) continue;
    const before = at("counts").textContent;
    await drawCounts();
    // A card with the focus stays, so that the keyboard does not lose its place.
    if (at("counts").textContent !== before && !at("shots").contains(document.activeElement)) await drawShots();
  }
} catch (problem) {
  refused(problem);
}
