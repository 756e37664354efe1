// The shots of one batch: a page of 50, filtered and ordered by the gateway; the progress, and what can be done with the batch.
import { api, at, confirmed, day, during, element, lastPart, refused, say, secondsOf, showBar, spoken, withUsersNames } from "./page.js";
import { isSent } from "./operations.js";
import { decisionOf, hasVideo, runningFor, shotId, stateOf, videoUrl } from "./reviews.js";

const PAGE = 50;
const AGAIN_MS = 4000;
const SECOND_MS = 1000;
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

/** Running shots by the nodes that say for how long. */
const running = new Map();
function showTimes() {
  for (const [node, shot] of running) {
    if (node.isConnected) node.textContent = ` ${runningFor(shot)}`;
    else running.delete(node);
  }
}

/** Return the link that saves the video of a shot; null: there is no video that the gateway sends. */
function download(shot) {
  if (!hasVideo(shot) || !isSent(shot.outputUri)) return null;
  const link = { className: "small", href: videoUrl(shot.outputUri, shot.outputSha256), download: lastPart(shot.outputUri), "aria-label": `Download ${shotId(shot)}` };
  return element("p", { className: "own" }, element("a", link, "Download"));
}

function card(shot) {
  const id = shotId(shot);
  const time = element("span", {}, runningFor(shot) && ` ${runningFor(shot)}`);
  if (runningFor(shot)) running.set(time, shot);
  const [look, state] = stateOf(shot);
  const [decided, decision] = decisionOf(shot.review);
  const why = withUsersNames(shot.look?.[0] ?? shot.error ?? "");
  return element(
    "li",
    {},
    shot.thumbnail ? element("img", { src: `data:image/jpeg;base64,${shot.thumbnail}`, alt: "", loading: "lazy" }) : element("div", { className: "none" }),
    element("h3", {}, element("a", { href: `/ui/batches/${encodeURIComponent(batch)}/shots/${encodeURIComponent(id)}?${ownQuery()}` }, id)),
    element("p", { className: "small" }, element("span", { className: look }, state), time, hasVideo(shot) || shot.risk ? ` · risk ${(shot.risk ?? 0).toFixed(2)}` : ""),
    hasVideo(shot) || shot.review ? element("p", { className: `small ${decided}` }, decision) : null,
    why ? element("p", { className: "small soft why" }, why) : null,
    download(shot),
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

/** Progress of the batch, BatchProgress of the contract. */
let progress = {};
async function drawCounts() {
  const answer = await api("GET", path);
  progress = answer.progress ?? {};
  const tiles = [
    ["shots", answer.numShots],
    ["done", progress.numDone],
    ["failed", progress.numFailed],
    ["not dubbed", progress.numUndubbed],
    ...(Number(progress.numCancelled) ? [["cancelled", progress.numCancelled]] : []),
    ["left", Number(progress.numWaiting) + Number(progress.numRunning)],
    ["approved", progress.numApproved],
    ["rejected", progress.numRejected],
    ["assigned", progress.numAssigned],
  ];
  at("about").textContent = [`Begun ${day(answer.createTime)}`, ...(answer.notes ?? [])].join(". ");
  at("counts").replaceChildren(...tiles.map(([name, count]) => element("div", { className: "tile" }, element("b", {}, String(count ?? 0)), element("span", {}, name))));
  const { fraction = 0, remaining, framesPerSecond } = progress;
  const isEnded = fraction >= 1;
  const texts = [
    `${Math.floor(100 * fraction)} % of the shots have ended, ${progress.numRunning ?? 0} running`,
    remaining === undefined ? "the time left is not known yet" : `about ${spoken(secondsOf(remaining))} left`,
    framesPerSecond ? `${framesPerSecond.toFixed(1)} frames a second` : "",
  ];
  at("running").hidden = isEnded;
  at("progress").textContent = texts.filter(Boolean).join(", ");
  showBar(at("running"), fraction);
  at("retry").hidden = !Number(progress.numRejected);
  at("again").hidden = !Number(progress.numFailed) && !Number(progress.numCancelled) && !Number(progress.numUndubbed);
  at("cancel").hidden = isEnded;
  at("remove").hidden = !isEnded;
}

/** Return the counts as a text: another one means other cards. */
const countsNow = () => JSON.stringify(Object.entries(progress).filter(([name]) => name.startsWith("num") && name !== "numFrames"));

/** Change the batch with a button, after a question, and show the batch. */
function onConfirmed(id, [title, text, action], change, told) {
  at(id).addEventListener("click", async () => {
    if (!(await confirmed(title, text, action))) return;
    const isChanged = await during(at(id), async () => {
      await change();
      return true;
    });
    if (!isChanged) return;
    say(told);
    await Promise.all([drawCounts(), drawShots()]).catch(refused);
    // The button may be gone, and with the button the place of the keyboard.
    if (at(id).hidden) at("main").focus();
  });
}

at("filters").addEventListener("change", () => location.assign(`?${ownQuery()}`));
at("filters").addEventListener("submit", (event) => {
  event.preventDefault();
  location.assign(`?${ownQuery()}`);
});
onConfirmed(
  "retry",
  ["Dub the rejected shots again?", ["Their present videos are replaced."], "Dub again"],
  () => api("POST", `${path}:retry`, { rejected: true }),
  "The rejected shots are dubbed again.",
);
onConfirmed(
  "again",
  ["Dub these shots again?", ["The failed, the cancelled and the undubbed shots begin anew."], "Dub again"],
  () => api("POST", `${path}:retry`, {}),
  "The shots are dubbed again.",
);
onConfirmed(
  "cancel",
  ["Cancel this batch?", ["Shots that have not ended are cancelled. Finished videos stay, and the others can be dubbed later."], "Cancel the batch"],
  () => api("POST", `${path}:cancel`, {}),
  "The batch is cancelled.",
);
onConfirmed(
  "remove",
  ["Remove this batch?", ["Its list of shots, records, pictures and decisions are removed. The videos stay where they lie. This cannot be taken back."], "Remove the batch"],
  async () => {
    await api("DELETE", path);
    location.assign("/ui/batches");
    await new Promise(() => {});
  },
  "",
);

setInterval(showTimes, SECOND_MS);
try {
  await Promise.all([drawCounts(), drawShots()]);
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    if (document.hidden || progress.fraction >= 1) continue;
    const before = countsNow();
    await drawCounts();
    // A card with the focus stays, so that the keyboard does not lose its place.
    if (countsNow() !== before && !at("shots").contains(document.activeElement)) await drawShots();
  }
} catch (problem) {
  refused(problem);
}
