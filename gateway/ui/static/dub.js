// The page of one dub: its progress, then original and dub in lock-step with the time line.
import { Refusal, api, at, capitalised, confirmed, day, during, element, factRows, lastPart, refused, say, secondsOf, showBar, shownName, spoken, withUsersNames } from "./page.js";
import { drawOpening, drawSpans, drawWave, readSound } from "./lanes.js";
import { ABOUT_OWN_TIME, dubOf, ended, hasOwnTime, mediaUrl, newestDubs, reasonOf, sha256Of, showFile, stepName, whyNotShown } from "./operations.js";
import { Player, listenToKeys, wipeTo } from "./player.js";

const name = `operations/${at("running").dataset.operation}`;
/** Dubs among which others of the same footage are looked for. */
const NEWEST = 300;

/** Return which part of the video a preview shows, in words. */
const partOf = ({ previewTime, previewTimecode }) => (previewTimecode || previewTime ? `some seconds from ${previewTimecode || `${secondsOf(previewTime)} s`} on` : "the first seconds");

function title(dub) {
  const footage = shownName(dub.request.footageUri);
  at("name").textContent = footage;
  document.title = `${footage} – dubstage`;
  const preview = dub.request.preview ? `Preview of ${partOf(dub.request)}, ` : "";
  const { lines = [] } = dub.request;
  const speech = preview + (lines.length ? `with ${lines.length} ${lines.length > 1 ? "lines" : "line"}` : dub.request.speechUri ? `with the speech of ${shownName(dub.request.speechUri)}` : "with its own sound");
  at("about").textContent = [speech, dub.created && `begun ${day(dub.created)}`].filter(Boolean).join(", ");
}

const seen = [];
function showProgress(dub) {
  at("running").hidden = dub.ended;
  if (dub.ended) return;
  const share = Math.floor(100 * dub.fraction);
  showBar(at("running"), dub.fraction);
  at("share").textContent = `${share} %`;
  at("remaining").textContent = dub.remaining === null ? "The time left is not known yet." : `about ${spoken(dub.remaining)} left`;
  if (dub.step && dub.step !== "OPERATION_STEP_UNSPECIFIED" && seen.at(-1) !== dub.step) seen.push(dub.step);
  const count = dub.total > 1 ? ` (${dub.done} of ${dub.total})` : "";
  at("steps").replaceChildren(
    ...seen.map((step, index) => element("li", { className: index < seen.length - 1 ? "done" : "now" }, stepName(step), index < seen.length - 1 ? "" : count)),
  );
  if (!seen.length) at("steps").replaceChildren(element("li", {}, "Wait for the gateway"));
}

at("cancel").addEventListener("click", async () => {
  if (!(await confirmed("Cancel this dub?", ["What is finished of the dub is removed."], "Cancel the dub"))) return;
  await during(at("cancel"), () => api("POST", `/v1/${name}:cancel`, {}));
});

const words = (value, prefix) => (value ?? "").replace(prefix, "").toLowerCase().replaceAll("_", " ");

function optionRows(request) {
  return [
    ["Preview", request.preview ? partOf(request) : ""],
    ["Method", request.method || "the gateway's own choice"],
    ["Person", request.actor ? lastPart(request.actor) : request.lines?.length ? "" : "learned from the footage"],
    ["Lines", (request.lines ?? []).map((line) => `${secondsOf(line.startTime)} s: ${shownName(line.speechUri)}${line.actor ? `, ${lastPart(line.actor)}` : ""}`).join("; ")],
    ["Length", words(request.fit, "FIT_").replace("unspecified", "")],
    ["Expression", words(request.expression, "EXPRESSION_").replace("unspecified", "keep where possible")],
    ["Finish", words(request.finish, "FINISH_").replace("unspecified", "the method decides")],
    ["Expressiveness", String(request.expressiveness ?? 1)],
    ["Video", words(request.codec, "VIDEO_CODEC_").replace("unspecified", "as the footage")],
    ["Quality of the pictures", request.encodeQuality],
    ["Language", request.language],
    ["Project", request.project],
    ["Music and effects", request.mixUri ? `${shownName(request.mixUri)}, ${request.mixLevelDb ?? 0} dB` : ""],
    ["Label", request.label],
    ["Sound", request.keepAudio ? "that of the footage" : "the new speech"],
    ["Networks", request.skipPersonalization ? "not adapted to the person" : ""],
  ];
}

/** Return the box of the mouth in a frame, between the two samples around it; null: no sample is near. */
function boxAt(mouths, frame) {
  if (!mouths.length) return null;
  let low = 0;
  let high = mouths.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (Number(mouths[middle].frameIndex) <= frame) low = middle;
    else high = middle;
  }
  const [first, last] = [mouths[low], mouths[high]];
  const apart = Number(last.frameIndex) - Number(first.frameIndex);
  const share = apart ? Math.max(0, Math.min(1, (frame - Number(first.frameIndex)) / apart)) : 0;
  const mix = (field) => first.box[field] * (1 - share) + last.box[field] * share;
  return { left: mix("left"), top: mix("top"), width: mix("width"), height: mix("height") };
}

/** Draw the mouth of a video. `scale`: pixels of the video for one pixel of the box; a preview may have half the size of the footage. */
function drawMouth(canvas, video, box, scale = 1) {
  if (!box || video.readyState < 2) return;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const area = [box.left, box.top, box.width, box.height].map((side) => side * scale);
  context.drawImage(video, ...area, 0, 0, canvas.width, canvas.height);
}

/**
 * Return three verdicts on a dub, [{question, look, text, frame}]; `frame` is the first frame that the verdict is about, or undefined.
 * One warning of a preview says that the dub is a preview.
 */
function verdictsOf(result, isPreview) {
  const numFrames = Number(result.numFrames);
  const left = (result.reasons ?? []).map((count) => ({ ...reasonOf(count.reason), reason: count.reason, numFrames: Number(count.numFrames) }));
  // In a scene, frames without a line are meant to stay.
  const kept = left.filter(({ code }) => !["DUBBED", "SILENT", "NO_LINE"].includes(code));
  const numKept = kept.reduce((sum, count) => sum + count.numFrames, 0);
  const first = (result.spans ?? []).find((span) => kept.some(({ reason }) => reason === span.reason));
  const faults = kept.map(({ text, numFrames: frames }) => `${text} in ${frames}`).join(", ");
  const warnings = result.warnings?.length ?? 0;
  const isMarked = Boolean(result.watermark);
  const marks = [result.consentOnRecord ? "A consent is on record." : "No consent is on record.", isMarked ? "The mouths carry the watermark." : "There is no watermark."];
  return [
    {
      question: "Is every frame dubbed?",
      look: numKept ? "bad" : "good",
      text: numKept ? `${numKept} of ${numFrames} frames keep the original mouth: ${faults}.` : "Yes.",
      frame: first && Number(first.firstFrame),
    },
    { question: "Are there warnings?", look: warnings > (isPreview ? 1 : 0) ? "bad" : "good", text: warnings ? `${warnings}, below the time line.` : "No." },
    { question: "Is the video marked?", look: result.consentOnRecord && isMarked ? "good" : "soft", text: marks.join(" ") },
  ];
}

function showResult(dub, others) {
  const { request, result } = dub;
  const numFrames = Number(result.numFrames);
  const frameRate = Number(result.frameRateNum) / Number(result.frameRateDen) || 25;
  const spans = result.spans ?? [];
  const mouths = result.mouths ?? [];
  const [before, after] = [at("before"), at("after")];
  let sameTime = !hasOwnTime(request.fit);
  at("result").hidden = false;
  at("undubbed").hidden = !result.undubbed;
  at("undubbed").textContent = capitalised(withUsersNames(result.undubbed ?? ""));
  at("download").hidden = false;
  at("download").href = mediaUrl(result.outputUri);
  at("download").download = shownName(result.outputUri);

  const player = new Player(before, after, { frameRate, numFrames }, (frame) => {
    at("position").value = frame;
    const time = `${(frame / frameRate).toFixed(2)} s, frame ${frame} of ${numFrames}`;
    at("time").textContent = time;
    at("position").setAttribute("aria-valuetext", time);
    document.querySelector(".lanes .cursor").style.left = `${(100 * (frame + 0.5)) / numFrames}%`;
    const box = boxAt(mouths, frame);
    drawMouth(at("mouth-after"), after, box);
    if (sameTime) drawMouth(at("mouth-before"), before, box, before.videoWidth / after.videoWidth);
    at("play").textContent = player.playing ? "Pause" : "Play";
  });
  player.begin = secondsOf(result.begin);
  at("position").max = numFrames - 1;
  at("mouths-card").hidden = !mouths.length;
  player.setLoop(true);

  const troubles = { before: "", after: "", time: "" };
  const showTroubles = () => {
    at("trouble").textContent = Object.values(troubles).filter(Boolean).join(" ");
    at("trouble").hidden = !at("trouble").textContent;
    at("mouth-before").parentElement.hidden = !sameTime || Boolean(troubles.before);
    at("wipe").parentElement.hidden = Boolean(troubles.before);
  };
  const readBefore = () => {
    // Of a video whose codec is unknown, a browser may play the sound alone.
    troubles.before = before.error || !(before.videoWidth || before.hasAttribute("poster")) ? "The original is not shown." : "";
    if (troubles.before) {
      wipeTo(0);
      whyNotShown(request.footageUri).then((why) => {
        // Meanwhile another dub may stand in place of the original.
        if (troubles.before) troubles.before = why;
        showTroubles();
      });
    }
    // A picture has no time, and no mouth is cut out of it.
    if (before.hasAttribute("poster")) [sameTime, troubles.time] = [false, ""];
    else if (before.duration && after.duration) {
      sameTime = !hasOwnTime(request.fit, before, after, frameRate);
      troubles.time = sameTime ? "" : ABOUT_OWN_TIME;
    }
    showTroubles();
  };
  for (const event of ["error", "loadedmetadata", "picture"]) before.addEventListener(event, readBefore);
  after.addEventListener("error", () => {
    troubles.after = "This browser cannot play the dub: download the video.";
    showTroubles();
  });
  after.addEventListener("loadedmetadata", () => {
    if (after.videoHeight) at("stage").style.setProperty("--shape", after.videoWidth / after.videoHeight);
    if (!troubles.before) wipeTo(besideFace());
    if (before.readyState || before.hasAttribute("poster")) readBefore();
  });
  showFile(before, mediaUrl(request.footageUri));
  after.src = mediaUrl(result.outputUri);

  at("wipe").addEventListener("input", (event) => wipeTo(event.target.value));
  const drag = (event) => {
    if (troubles.before) return;
    const box = at("stage").getBoundingClientRect();
    wipeTo(Math.max(0, Math.min(100, (100 * (event.clientX - box.left)) / box.width)));
  };
  at("stage").addEventListener("pointerdown", (event) => {
    at("stage").setPointerCapture(event.pointerId);
    drag(event);
  });
  at("stage").addEventListener("pointermove", (event) => event.buttons && drag(event));
  // The edge of the wipe stands beside the face at first, so that the face is whole.
  const besideFace = () => {
    const left = Math.min(...mouths.map(({ box }) => box.left - box.width / 2));
    return after.videoWidth && mouths.length ? Math.max(0, Math.min(50, (100 * left) / after.videoWidth)) : 0;
  };
  wipeTo(0);

  at("play").addEventListener("click", () => player.toggle());
  for (const event of ["play", "pause"]) after.addEventListener(event, () => player.redraw());
  at("back").addEventListener("click", () => player.step(-1));
  at("forward").addEventListener("click", () => player.step(1));
  at("loop").addEventListener("click", () => player.setLoop(!after.loop));
  at("speed").addEventListener("change", (event) => player.setSpeed(Number(event.target.value)));
  at("sound").addEventListener("change", (event) => {
    before.muted = event.target.value !== "before";
    after.muted = event.target.value !== "after";
  });
  at("position").addEventListener("input", (event) => player.seek(Number(event.target.value)));
  listenToKeys(() => player);

  const lanes = at("lanes");
  lanes.addEventListener("pointerdown", (event) => {
    const box = lanes.getBoundingClientRect();
    player.seek(Math.floor(((event.clientX - box.left) / box.width) * numFrames));
  });
  const sounds = {};
  const draw = () => {
    drawSpans(at("spans"), spans, numFrames);
    if (mouths.some((mouth) => mouth.opening !== undefined)) drawOpening(at("opening"), mouths, numFrames);
    else at("opening-lane").hidden = true;
    for (const [id, sound] of Object.entries(sounds)) {
      if (sound) drawWave(at(id), sound, numFrames / frameRate, id === "wave-after" ? "--wave" : "--wave-soft", id === "wave-before" ? secondsOf(result.begin) : 0);
    }
  };
  draw();
  for (const [id, uri] of [["wave-after", result.outputUri], ["wave-before", request.footageUri]]) {
    readSound(mediaUrl(uri)).then((sound) => {
      sounds[id] = sound;
      if (sound) draw();
      else at(id).replaceWith(element("p", { className: "small soft" }, "No sound that this browser can read."));
    });
  }
  new ResizeObserver(draw).observe(lanes);
  new ResizeObserver(() => wipeTo(Number(at("wipe").value))).observe(at("stage"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  at("reasons").replaceChildren(
    ...(result.reasons ?? []).map((count) => {
      const { code, text, colour } = reasonOf(count.reason);
      const square = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      square.setAttribute("viewBox", "0 0 1 1");
      square.setAttribute("aria-hidden", "true");
      const rect = square.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "rect"));
      for (const [key, value] of [["width", 1], ["height", 1], ["fill", colour]]) rect.setAttribute(key, value);
      const next = () => {
        const starts = spans.filter((span) => span.reason === count.reason).map((span) => Number(span.firstFrame));
        if (player.playing) player.pause();
        player.seek(starts.find((start) => start > player.frame) ?? starts[0] ?? 0);
      };
      const label = `${text} (${code}): ${count.numFrames} frames`;
      const jump = code === "DUBBED" ? null : element("button", { className: "quiet small", onclick: next, "aria-label": `Next frame: ${text}` }, "show next");
      return element("li", {}, square, label, jump);
    }),
  );

  at("verdicts").replaceChildren(
    ...verdictsOf(result, request.preview).map(({ question, look, text, frame }) => {
      const show = () => {
        if (player.playing) player.pause();
        player.seek(frame);
      };
      const jump = frame === undefined ? null : element("button", { className: "quiet small", onclick: show }, "Show the first");
      return element("li", {}, element("b", {}, question), element("p", { className: look }, text), jump);
    }),
  );

  const fileDigest = element("code", {}, "…");
  at("facts").replaceChildren(...factRows([
    ["Frames with a new mouth", `${result.numDubbed} of ${numFrames}`],
    ["Length", `${(numFrames / frameRate).toFixed(2)} s at ${Number(frameRate.toFixed(3))} frames per second`],
    ["Face", (result.faces ?? []).map((face) => [face.faceId === undefined ? "" : `number ${face.faceId}: `, face.why].join("")).join("; ")],
    ["Consent", result.consentOnRecord ? "on record" : "none on record"],
    ["Watermark", result.watermark || (result.watermarkOn ? "on, no frame was dubbed" : "off")],
    ["SHA-256 of the file", fileDigest],
    ["SHA-256 without the manifest", element("code", {}, result.mediaSha256)],
  ]));
  sha256Of(result.outputUri).then((digest) => {
    fileDigest.textContent = digest || "not known: the file is not in the media folder any more";
  });
  at("options").replaceChildren(...factRows(optionRows(request)));
  at("warnings-card").hidden = !result.warnings?.length;
  at("warnings").replaceChildren(...(result.warnings ?? []).map((text) => element("li", {}, capitalised(withUsersNames(text)))));
  showVersions(dub, others, player);
}

/** Show the other dubs of the same footage: each can be put beside this dub in place of the original. */
function showVersions(dub, others, player) {
  const { before } = player;
  at("versions-card").hidden = !others.length;
  const show = (uri, text, button, begin) => {
    const time = before.currentTime;
    player.begin = secondsOf(dub.result.begin) - begin;
    showFile(before, mediaUrl(uri));
    before.currentTime = time;
    document.querySelector(".name.before").textContent = text;
    // A longer name needs more room.
    wipeTo(Number(at("wipe").value));
    for (const one of at("versions").querySelectorAll("button")) one.setAttribute("aria-pressed", one === button);
    at("stage").scrollIntoView({ block: "nearest" });
  };
  const line = (text, link, uri, label, begin = 0) => {
    const button = element("button", { "aria-pressed": "false", onclick: (event) => show(uri, label, event.currentTarget, begin) }, "Put beside this dub");
    return element("li", { className: "row" }, link ? element("a", { href: link }, text) : text, button);
  };
  at("versions").replaceChildren(
    line("The original", "", dub.request.footageUri, "Original"),
    ...others.map((other) => {
      const options = optionRows(other.request).filter(([label, value]) => value && optionRows(dub.request).find(([same]) => same === label)?.[1] !== value);
      const differs = options.map(([label, value]) => `${label.toLowerCase()} ${value}`).join(", ");
      return line([day(other.created), differs].filter(Boolean).join(": "), `/ui/dubs/${other.id}`, other.result.outputUri, `Dub of ${day(other.created)}`, secondsOf(other.result.begin));
    }),
  );
  at("versions").querySelector("button").setAttribute("aria-pressed", "true");
}

try {
  let dub = null;
  const operation = await ended(name, (now) => {
    dub = dubOf(now);
    if (!dub) throw new Refusal("This operation is no dub.", 404, "");
    title(dub);
    showProgress(dub);
  });
  dub = dubOf(operation);
  if (dub.result) {
    const { dubs } = await newestDubs(NEWEST, "", true);
    const others = dubs.filter((one) => one.result && one.id !== dub.id && one.request.footageUri === dub.request.footageUri);
    showResult(dub, others.slice(0, 20));
    say("The dub is done.");
  } else {
    at("failed").hidden = false;
    at("failed-title").textContent = dub.cancelled ? "This dub was cancelled" : "This dub failed";
    at("why").textContent = dub.cancelled ? "Nothing of the video is kept." : capitalised(dub.problem);
    say(at("failed-title").textContent);
  }
} catch (problem) {
  refused(problem);
}
