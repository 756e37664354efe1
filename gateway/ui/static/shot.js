// One shot: player, note pinned to a frame and a region, decisions by buttons and keys, redo with other options, next shot by risk.
import { Refusal, api, at, confirmed, during, element, lastPart, refused, refusedAt, say, withUsersNames } from "./page.js";
import { ABOUT_OWN_TIME, hasOwnTime, isSent, mediaUrl, showFile, whyNotShown } from "./operations.js";
import { Player, listenToKeys, wipeTo } from "./player.js";
import { decisionOf, hasEnded, hasVideo, runningFor, shotId, stateOf, toldDecision, verdictsOf, videoUrl } from "./reviews.js";

const AGAIN_MS = 3000;
const CLICK = 0.08;
const { batch, shot: id } = at("name").dataset;
const path = `/v1/batches/${encodeURIComponent(batch)}`;
const own = `${path}/shots/${encodeURIComponent(id)}`;
const query = new URLSearchParams(location.search);
let shot = null;
let player = null;
/** Number of the last decision that this page knows. */
let lastSeen = 0;
/** Usual lowest and highest value of each figure, by its path in a shot. */
const usual = JSON.parse(at("verdicts").dataset.usual);
/** Whether the numbers of a verdict are unfolded, by its question. */
const unfolded = new Map();

document.title = `${id} – dubstage`;
at("back-to-batch").href += `?${query}`;
if (!at("reviewer").readOnly) at("reviewer").value = localStorage.getItem("dubstage-reviewer") ?? "";
at("reviewer").addEventListener("change", () => localStorage.setItem("dubstage-reviewer", at("reviewer").value));

function badge(node, [look, text]) {
  node.className = `badge ${look}`;
  node.textContent = text;
}

const lastNumber = (answer) => answer.reviews?.at(-1)?.number ?? 0;

function draw(answer) {
  shot = answer;
  badge(at("state"), stateOf(shot));
  badge(at("decision"), decisionOf(shot.review));
  at("risk").textContent = hasEnded(shot) ? `Risk ${(shot.risk ?? 0).toFixed(2)}` : runningFor(shot);
  const why = [...new Set([...(shot.error ? [shot.error] : []), ...(shot.look ?? []), ...(shot.riskReasons ?? [])])];
  at("why").replaceChildren(...(why.length ? why : ["Nothing is out of the ordinary."]).map((text) => element("li", {}, withUsersNames(text))));
  at("verdicts").replaceChildren(
    ...verdictsOf(shot, usual).map(({ question, look, text, figures }) =>
      element("li", {}, element("b", {}, question), element("p", { className: look }, text), figures.length ? numbersOf(question, figures) : null),
    ),
  );
  const decisions = (shot.reviews ?? []).map((review) => [review, toldDecision(review, shot.outputSha256 ?? "")]).reverse();
  at("history-card").hidden = !decisions.length;
  at("history").replaceChildren(
    ...decisions.map(([review, { title, note, position }]) =>
      element(
        "li",
        {},
        element("b", {}, title),
        note && element("p", { className: "note" }, note),
        position && element("p", { className: "small soft" }, position),
        review.frame !== undefined && player ? element("button", { type: "button", onclick: () => showPin(review) }, "Show this place") : null,
      ),
    ),
  );
  for (const name of ["approve", "reject", "assign"]) at(name).disabled = !hasVideo(shot);
  at("no-video").hidden = hasVideo(shot);
  at("no-video").textContent = hasEnded(shot) ? "There is no finished video to decide about: dub the shot again." : "A decision needs the finished video.";
  at("redo").disabled = !hasEnded(shot);
  at("cancel").hidden = hasEnded(shot);
  at("download").hidden = !hasVideo(shot) || !isSent(shot.outputUri);
  at("download").href = at("download").hidden ? "" : videoUrl(shot.outputUri, shot.outputSha256);
  at("download").download = lastPart(shot.outputUri ?? "");
}

/** Return the figures of a verdict, folded; a figure that missed its threshold unfolds them at first. */
function numbersOf(question, figures) {
  const rows = figures.map(([name, value, limits, missed]) =>
    element("tr", {}, element("th", { scope: "row", className: "soft" }, name), element("td", { className: missed ? "bad" : "" }, value, limits && ` (${limits})`, missed && `: ${missed}`)),
  );
  const open = unfolded.get(question) ?? figures.some(([, , , missed]) => missed);
  const details = element("details", { open }, element("summary", { className: "small" }, "Numbers"), element("table", { className: "facts" }, element("tbody", {}, rows)));
  details.addEventListener("toggle", () => unfolded.set(question, details.open));
  return details;
}

/** Say who decided since this page knew the shot; `mine` is the number of the decision of this page, 0: none. */
function tellMeanwhile(mine) {
  const others = (shot.reviews ?? []).filter((review) => review.number > lastSeen && review.number !== mine);
  lastSeen = lastNumber(shot);
  if (!others.length) return;
  const text = others.map((review) => decisionOf(review)[1]).join("; ");
  at("meanwhile").hidden = false;
  at("meanwhile").textContent = `Another person has decided meanwhile: ${text}. The last decision counts.`;
}

function region() {
  if (!at("place").value.trim()) return undefined;
  const [x, y, width, height] = at("place").value.split(",").map((text) => Number.parseFloat(text) / 100);
  return { x, y, width, height };
}

function drawRegion() {
  const pinned = region();
  at("region").hidden = !pinned || Object.values(pinned).some((value) => !Number.isFinite(value));
  if (at("region").hidden) return;
  for (const [name, value] of [["left", pinned.x], ["top", pinned.y], ["width", pinned.width], ["height", pinned.height]]) at("region").style[name] = `${100 * value}%`;
}

function setRegion(x, y, width, height) {
  at("place").value = [x, y, width, height].map((share) => (100 * share).toFixed(1)).join(", ");
  drawRegion();
}

function pin() {
  if (player) at("frame").value = player.frame;
}

function unpin() {
  at("frame").value = "";
  at("place").value = "";
  drawRegion();
}

function showPin(review) {
  player.pause();
  player.seek(Number(review.frame));
  at("frame").value = review.frame;
  if (review.region) setRegion(review.region.x, review.region.y, review.region.width, review.region.height);
  at("stage").scrollIntoView({ block: "nearest" });
}

async function decide(button, state) {
  if (!at("reviewer").value.trim()) {
    refusedAt(at("form"), new Refusal("Give your name: a decision says who has decided.", 0, "reviewer"));
    return;
  }
  const body = { state: `REVIEW_STATE_${state}`, note: at("note").value, reviewer: at("reviewer").value, outputSha256: shot.outputSha256 ?? "" };
  if (state === "ASSIGNED") body.assignee = at("assignee").value;
  if (at("frame").value !== "") body.frame = at("frame").value;
  const pinned = region();
  if (pinned) body.region = pinned;
  const answer = await during(button, () => api("POST", `${own}:review`, body));
  if (!answer) return;
  at("meanwhile").hidden = true;
  draw(answer);
  const mine = [...answer.reviews].reverse().find((review) => review.number > lastSeen && review.state === body.state && (review.note ?? "") === body.note.trim());
  tellMeanwhile(mine?.number ?? 0);
  at("note").value = "";
  unpin();
  say(decisionOf(answer.review)[1]);
}

async function onward() {
  const wanted = new URLSearchParams({ orderBy: `SHOT_ORDER_${query.get("order") ?? "RISK"}`, pageSize: 1, afterShot: id });
  if (query.get("state")) wanted.set("states", `SHOT_STATE_${query.get("state")}`);
  if (query.get("review")) wanted.set("reviewStates", `REVIEW_STATE_${query.get("review")}`);
  if (query.get("assignee")) wanted.set("assignee", query.get("assignee"));
  if (query.has("marked")) wanted.set("toLookAt", true);
  const page = await api("GET", `${path}/shots?${wanted}`);
  if (page.shots.length) location.assign(`/ui/batches/${encodeURIComponent(batch)}/shots/${encodeURIComponent(shotId(page.shots[0]))}?${query}`);
  else refused("This is the last shot of the list.");
}

const faceText = ({ faceId, point, faceRule = "FACE_RULE_AUTO" }) =>
  point ? `${point.x},${point.y}` : faceId === undefined ? faceRule.replace("FACE_RULE_", "").toLowerCase() : String(faceId);

/** Controls whose names are fields of ShotOptions. */
const controls = [...at("again").querySelectorAll("[name]")];

function faceField(text) {
  if (text.includes(",")) {
    const [x, y] = text.split(",").map(Number);
    return { point: { x, y } };
  }
  if (/^\d+$/.test(text)) return { faceId: text };
  return { faceRule: `FACE_RULE_${text.toUpperCase()}` };
}

function showOptions() {
  const { method = "", seed, skipPersonalization } = shot.options;
  if (![...at("method").options].some((option) => option.value === method)) at("method").append(element("option", {}, method));
  for (const control of controls) control.value = shot.options[control.name] ?? "";
  at("seed").value = seed;
  at("face").value = faceText(shot.options);
  at("adapt").checked = !skipPersonalization;
  at("again").returnValue = "no";
  at("again").showModal();
}

/** Return the options of the form that differ from those of the shot. */
function changedOptions() {
  const given = {
    ...Object.fromEntries(controls.map((control) => [control.name, control.type === "number" ? Number(control.value) : control.value])),
    seed: Number(at("seed").value),
    skipPersonalization: !at("adapt").checked,
  };
  const changed = Object.fromEntries(Object.entries(given).filter(([name, value]) => value !== shot.options[name]));
  const face = at("face").value.trim();
  return face === faceText(shot.options) ? changed : { ...changed, ...faceField(face) };
}

/** Return URL and description of the video that the last retry has replaced; null: there is none. */
function earlierDub() {
  const { outputUri, outputSha256, options } = shot.earlier ?? {};
  if (!outputUri || outputSha256 === shot.outputSha256) return null;
  // A number says little without its name. Names of enums begin with the name of their field, such as FIT_CUT.
  const text = controls.map(({ type, name }) => (type === "number" ? `${name} ${options[name]}` : options[name]?.replace(/^[A-Z]+_/, "").toLowerCase()));
  const shown = text.filter((part) => part && part !== "unspecified").join(", ");
  return [videoUrl(outputUri, outputSha256), `Earlier dub: ${shown}`];
}

async function redo() {
  const options = changedOptions();
  await during(at("redo"), async () => {
    await api("POST", `${path}:retry`, { shotIds: [id], options });
    say("The shot is dubbed again.");
  });
  draw(await api("GET", own));
  // The new video replaces the file that the player reads.
  const earlier = earlierDub();
  if (earlier && player) at("after").src = earlier[0];
}

/** Offer what can stand on the left of the wipe: the earlier dub, and the original. */
function offerOthers() {
  const earlier = earlierDub();
  const original = isSent(shot.footageUri) ? [[mediaUrl(shot.footageUri), "Original"]] : [];
  const others = [...(earlier ? [earlier] : []), ...original];
  at("compare").replaceChildren(...others.map(([value, text]) => element("option", { value }, text)));
  at("compare-row").hidden = !earlier;
  if (others.length) showOther();
  else tellOfOriginal();
  wipeTo(earlier ? 50 : 0);
}

function showOther() {
  // A sentence about the dub itself stays.
  if (!at("after").error) at("trouble").hidden = true;
  at("wipe").parentElement.hidden = false;
  document.querySelector(".name.before").textContent = at("compare").selectedOptions[0].textContent;
  wipeTo(Number(at("wipe").value));
  showFile(at("before"), at("compare").value);
}

/** Show the dub alone. */
function hideOther() {
  at("wipe").parentElement.hidden = true;
  wipeTo(0);
}

async function tellOfOriginal() {
  hideOther();
  trouble(`${await whyNotShown(shot.footageUri)} The dub is shown alone.`);
}

function trouble(text) {
  at("trouble").textContent = text;
  at("trouble").hidden = false;
}

function openPlayer() {
  const uri = shot.outputUri ?? "";
  if (!shot.outputSha256) return;
  at("unplayable").hidden = true;
  at("trouble").hidden = true;
  const frames = uri.endsWith(".sha256");
  if (!uri || frames || uri.includes("://") || uri.startsWith("/")) {
    const reason = frames
      ? `The dub is an image sequence, whose files ${uri} lists. A browser cannot play it.`
      : `The video lies at ${uri || "a place outside of the media folder"}, where the gateway cannot send it to the browser.`;
    at("unplayable").hidden = false;
    at("unplayable").textContent = `${reason} You can decide here all the same.`;
    return;
  }
  const numFrames = Number(shot.numFrames);
  const frameRate = shot.frameRate ? Number(shot.frameRate.num) / Number(shot.frameRate.den) : 25;
  at("player").hidden = false;
  at("position").max = numFrames - 1;
  player ??= newPlayer();
  Object.assign(player, { frameRate, numFrames });
  offerOthers();
  at("after").src = videoUrl(uri, shot.outputSha256);
}

/** Say if the original beside the dub is at another moment. An earlier dub may have another length too, and no sentence tells. */
function readTimes() {
  const { frameRate } = player ?? {};
  const isOriginal = at("compare").selectedOptions[0]?.textContent === "Original" && !at("before").hasAttribute("poster");
  if (isOriginal && at("before").duration && at("after").duration && hasOwnTime(shot.options.fit, at("before"), at("after"), frameRate)) {
    trouble(ABOUT_OWN_TIME);
  }
}

function newPlayer() {
  at("after").addEventListener("loadedmetadata", () => {
    const { videoWidth, videoHeight } = at("after");
    if (videoHeight) at("stage").style.setProperty("--shape", videoWidth / videoHeight);
  });
  for (const video of ["before", "after"]) at(video).addEventListener("loadedmetadata", readTimes);
  at("after").addEventListener("error", () => trouble("This browser cannot play the dub."));
  at("before").addEventListener("error", () => {
    if (at("compare").selectedOptions[0]?.textContent === "Original") tellOfOriginal();
    else {
      hideOther();
      trouble("This browser cannot play the earlier dub. The present dub is shown alone.");
    }
  });
  new ResizeObserver(() => wipeTo(Number(at("wipe").value))).observe(at("stage"));
  const made = new Player(at("before"), at("after"), { frameRate: 25, numFrames: 1 }, (frame) => {
    if (!player) return;
    at("position").value = frame;
    at("time").textContent = `${(frame / player.frameRate).toFixed(2)} s, frame ${frame} of ${player.numFrames}`;
    at("position").setAttribute("aria-valuetext", at("time").textContent);
    at("play").textContent = player.playing ? "Pause" : "Play";
  });
  made.setLoop(true);
  return made;
}

at("play").addEventListener("click", () => player.toggle());
at("loop").addEventListener("click", () => player.setLoop(!at("after").loop));
for (const event of ["play", "pause"]) at("after").addEventListener(event, () => player?.redraw());
at("back").addEventListener("click", () => player.step(-1));
at("forward").addEventListener("click", () => player.step(1));
at("position").addEventListener("input", (event) => player.seek(Number(event.target.value)));
at("wipe").addEventListener("input", (event) => wipeTo(Number(event.target.value)));
at("place").addEventListener("input", drawRegion);
at("pin").addEventListener("click", pin);
at("unpin").addEventListener("click", unpin);
at("form").addEventListener("submit", (event) => event.preventDefault());
at("approve").addEventListener("click", () => decide(at("approve"), "APPROVED"));
at("reject").addEventListener("click", () => decide(at("reject"), "REJECTED"));
at("assign").addEventListener("click", () => decide(at("assign"), "ASSIGNED"));
at("redo").addEventListener("click", showOptions);
at("again").addEventListener("close", () => at("again").returnValue === "yes" && redo());
at("compare").addEventListener("change", showOther);
at("onward").addEventListener("click", () => during(at("onward"), onward));
at("cancel").addEventListener("click", async () => {
  if (!(await confirmed(`Cancel the shot ${id}?`, ["What is finished of the shot is removed."], "Cancel the shot"))) return;
  await during(at("cancel"), () => api("POST", `${path}:cancel`, { shotIds: [id] }));
  draw(await api("GET", own));
});

let begun = null;
const shareAt = (event) => {
  const box = at("pins").getBoundingClientRect();
  const share = (value, low, size) => Math.max(0, Math.min(1, (value - low) / size));
  return [share(event.clientX, box.left, box.width), share(event.clientY, box.top, box.height)];
};
at("pins").addEventListener("pointerdown", (event) => {
  player?.pause();
  begun = shareAt(event);
  at("pins").setPointerCapture(event.pointerId);
});
const drawn = (event) => {
  if (!begun) return;
  const [x, y] = shareAt(event);
  let [left, top, width, height] = [Math.min(x, begun[0]), Math.min(y, begun[1]), Math.abs(x - begun[0]), Math.abs(y - begun[1])];
  if (width < 0.01 || height < 0.01) {
    [left, top] = [begun[0], begun[1]].map((middle) => Math.max(0, Math.min(1 - CLICK, middle - CLICK / 2)));
    [width, height] = [CLICK, CLICK];
  }
  setRegion(left, top, width, height);
  pin();
};
at("pins").addEventListener("pointermove", drawn);
at("pins").addEventListener("pointerup", (event) => {
  drawn(event);
  begun = null;
});

listenToKeys(() => player, [
  { keys: ["a"], text: "approves", button: "approve" },
  { keys: ["r"], text: "rejects", button: "reject" },
  { keys: ["n"], text: "shows the next shot", button: "onward" },
]);

try {
  draw(await api("GET", own));
  lastSeen = lastNumber(shot);
  openPlayer();
  draw(shot);
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    if (document.hidden) continue;
    const answer = await api("GET", own);
    // Lists that are drawn again lose the keyboard's focus.
    if (JSON.stringify(answer) === JSON.stringify(shot)) {
      if (!hasEnded(shot)) at("risk").textContent = runningFor(shot);
      continue;
    }
    const dubbed = answer.outputSha256 !== shot.outputSha256 && answer.outputSha256;
    draw(answer);
    tellMeanwhile(0);
    if (!dubbed) continue;
    openPlayer();
    draw(shot);
    say("The new video is here.");
  }
} catch (problem) {
  refused(problem);
}
