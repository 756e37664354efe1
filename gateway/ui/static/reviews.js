// Words of the pages of batches and shots.
import { day, lastPart, secondsOf, spoken } from "./page.js";
import { mediaUrl } from "./operations.js";

export const STATES = {
  WAITING: ["soft", "Waiting"],
  RUNNING: ["soft", "Running"],
  DONE: ["good", "Done"],
  UNDUBBED: ["bad", "Not dubbed"],
  FAILED: ["bad", "Failed"],
  CANCELLED: ["soft", "Cancelled"],
};
const DECISIONS = { APPROVED: ["good", "Approved"], REJECTED: ["bad", "Rejected"], ASSIGNED: ["", "Assigned"] };

export const stateOf = (shot) => STATES[shot.state.replace("SHOT_STATE_", "")] ?? ["soft", shot.state];

/** Return look and words of a decision; "Undecided" without one. */
export function decisionOf(review) {
  if (!review) return ["soft", "Undecided"];
  const [look, text] = DECISIONS[review.state.replace("REVIEW_STATE_", "")] ?? ["", review.state];
  return [look, `${text}${review.assignee ? ` to ${review.assignee}` : ""}${review.reviewer ? ` by ${review.reviewer}` : ""}`];
}

export const shotId = (shot) => lastPart(shot.name);
export const hasEnded = (shot) => !["SHOT_STATE_WAITING", "SHOT_STATE_RUNNING"].includes(shot.state);
/** Return whether a shot has a finished video, which decisions are about. */
export const hasVideo = (shot) => ["SHOT_STATE_DONE", "SHOT_STATE_UNDUBBED"].includes(shot.state) && Boolean(shot.outputSha256);
/** Return the address of a shot's video. A shot that was dubbed again has a file of the same name, and the browser must not mix the two. */
export const videoUrl = (uri, sha256) => `${mediaUrl(uri)}?video=${sha256}`;

/** Return how long the present try of a running shot takes so far; empty: the shot does not run. */
export function runningFor(shot) {
  if (shot.state !== "SHOT_STATE_RUNNING" || !shot.beginTime) return "";
  const again = shot.attempts > 1 ? `, try ${shot.attempts}` : "";
  return `for ${spoken((Date.now() - new Date(shot.beginTime)) / 1000)}${again}`;
}

/** Return a decision as {title, note, position} for the history. */
export function toldDecision(review, presentDigest) {
  const region = review.region;
  const percent = (share) => `${Math.round(100 * share)} %`;
  const position = [
    review.frame === undefined ? "" : `frame ${review.frame}`,
    region ? `place ${percent(region.x)}, ${percent(region.y)}, size ${percent(region.width)} × ${percent(region.height)}` : "",
    (review.outputSha256 ?? "") === presentDigest ? "" : "about an earlier video",
  ];
  return { title: `${decisionOf(review)[1]}, ${day(review.decideTime)}`, note: review.note ?? "", position: position.filter(Boolean).join(", ") };
}

/**
 * Verdicts of a shot: the question, and its figures [name, path, lowest, highest threshold, what a value beyond means].
 * A figure without a threshold of the batch is compared with its usual values.
 */
const QUESTIONS = [
  ["Does the mouth follow the speech?", [
    ["Correlation of target and drawn opening", "rOpening", "minROpening", null, "The drawn mouth opens at other moments than the speech asks for."],
    ["Mouth later than the sound, s", "finish.lateness", null, null, "The mouth is earlier or later than the sound."],
    ["Certainty that mouth and sound belong together", "finish.syncConfidence", null, null, "Mouth and sound may not belong together."],
    ["Mouth later than real people's at open vowels, s", "motion.vowelShift", null, "maxShift", "The mouth is earlier or later than real people's at vowels."],
    ["Lips later than real people's at p, b, m, s", "motion.closureShift", null, "maxShift", "The lips close earlier or later than real people's."],
    ["Speech with a still mouth", "finish.stillShare", null, null, "The mouth stands still in parts of the speech."],
  ]],
  ["Does the mouth move as this person's mouth does?", [
    ["Opening in silence", "motion.silenceOpening", null, "maxSilenceOpening", "The mouth stays open where nobody speaks."],
    ["Spread of the opening, over the person's own", "motion.openingSpread", "minOpeningSpread", "maxOpeningSpread", "The mouth moves clearly less, or clearly more, than the person's does."],
    ["Spread of the lip width, over the person's own", "motion.widthSpread", "minWidthSpread", null, "The lips round and spread less, or more, than the person's do."],
    ["Fastest change of the opening, over the person's own", "motion.fastestStep", null, "maxFastestStep", "The mouth is slower or faster than the person's ever is."],
  ]],
  ["Is the picture clean?", [
    ["Teeth of another colour", "appearance.tintAlarms", null, "maxTintAlarms", "The teeth change their colour."],
    ["Dark place under the nose", "appearance.nostrilAlarms", null, "maxNostrilAlarms", "A dark place appears under the nose."],
    ["Dull inside of the mouth", "appearance.lowContrast", null, "maxLowContrast", "The inside of the mouth is dull."],
    ["Change inside the mouth, over the video's", "appearance.popping", null, "maxPopping", "The inside of the mouth flickers."],
    ["Moving clothing", "appearance.clothingMoved", null, "maxClothingMoved", "Clothing moves with the jaw."],
    ["Distance of the face from the person's", "appearance.faceDistance", null, "maxFaceDistance", "The face looks less like the person."],
    ["Edge in the skin", "finish.seam", null, null, "An edge shows in the skin about the mouth."],
    ["Flicker of the skin", "finish.flicker", null, null, "The skin about the mouth flickers."],
  ]],
];

const valueOf = (shot, path) => path.split(".").reduce((holder, key) => holder?.[key], shot);
const isGiven = (value) => value !== undefined && value !== null;

/** Return the lowest and the highest value by the thresholds of a batch. One threshold is about earlier and later mouths. */
function thresholdsOf(quality, low, high) {
  if (high !== "maxShift") return [quality[low], quality[high]];
  const shift = quality.maxShift && secondsOf(quality.maxShift);
  return shift === undefined ? [] : [-shift, shift];
}

/**
 * Return the verdicts of a shot, [{question, look, text, figures}]: `look` is a class, `text` says in plain words what is beyond a
 * threshold of the batch or beyond the `usual` values, and figures are [[name, value, thresholds, missed]], of which `missed` is a word.
 */
export function verdictsOf(shot, usual) {
  const quality = shot.quality ?? {};
  return QUESTIONS.map(([question, rows]) => {
    const figures = [];
    const faults = [];
    const doubts = [];
    let numUsual = 0;
    for (const [name, path, low, high, meaning] of rows) {
      const value = valueOf(shot, path);
      if (!isGiven(value)) continue;
      const number = Number.parseFloat(value);
      const own = thresholdsOf(quality, low, high);
      const isOwn = own.some(isGiven);
      const [least, most] = isOwn ? own : (usual[path] ?? []);
      const limits = [isGiven(least) ? `at least ${least}` : "", isGiven(most) ? `at most ${most}` : ""].filter(Boolean).join(", ");
      const isBeyond = (isGiven(least) && number < least) || (isGiven(most) && number > most);
      if (!isOwn) numUsual += 1;
      if (isBeyond) (isOwn ? faults : doubts).push(meaning);
      figures.push([name, number.toFixed(Math.abs(number) < 0.1 ? 3 : 2), isOwn ? limits : `usually ${limits}`, isBeyond && (isOwn ? "missed" : "unusual")]);
    }
    const doubt = doubts.length ? `Beyond the usual values: ${doubts.join(" ")}` : "";
    const by = numUsual ? (numUsual === figures.length ? "by the usual values; the batch sets no threshold here" : "by the thresholds of the batch and the usual values") : "by every threshold of the batch";
    if (!figures.length) return { question, look: "soft", text: "Not measured.", figures };
    if (faults.length || doubts.length) return { question, look: "bad", text: [...faults, doubt].filter(Boolean).join(" "), figures };
    return { question, look: "good", text: `Yes, ${by}.`, figures };
  });
}
