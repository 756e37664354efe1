// People who are enrolled, and the enrolment of further people: consent, expiry, withdrawal, and erasure with its receipt.
import { api, capitalised, confirmed, day, during, element, factRows, lastPart, pageOf, refused, say, shownName, withUsersNames } from "./page.js";
import { enrolling } from "./enrol.js";
import { newestDubs } from "./operations.js";

/** Dubs among which those of a person are looked for. */
const NEWEST = 1000;
/** People of a page: an installation may have a million. */
const PAGE = 50;
const list = document.querySelector("#people");
let token = "";

const facts = (rows) => element("table", { className: "facts" }, element("tbody", {}, factRows(rows)));

function consentRows(record) {
  if (!record) return [["Consent", "none on record"]];
  return [
    ["Person", record.subject],
    ["Given by", record.grantedBy],
    ["Covers", record.scope],
    ["Date", record.date],
    ["From", day(record.validFrom)],
    ["Until", record.validUntil ? day(record.validUntil) : "no end"],
    ["Projects", (record.projects ?? []).join(", ")],
    ["Languages", (record.languages ?? []).join(", ")],
    ["Original kept at", record.reference],
    ["Signed", record.signature ? `yes, key ${record.signature.key.slice(0, 12)} …` : "no"],
  ];
}

function badge(actor) {
  if (actor.consentProblem) return element("span", { className: "badge bad" }, "Work not allowed");
  if (!actor.consent) return element("span", { className: "badge soft" }, "No consent on record");
  return element("span", { className: "badge good" }, "Consent on record");
}

/** Return the picture of a person, or the initials of the name if there is none that may be shown. */
function portrait(actor, who) {
  const initials = who.split(/[\s-]+/).filter(Boolean).slice(0, 2).map((part) => [...part][0].toUpperCase()).join("");
  const letters = () => element("span", { className: "portrait", "aria-hidden": "true" }, initials);
  if (!actor.hasPicture) return letters();
  const picture = element("img", { className: "portrait", src: `/v1/${actor.name}:picture`, alt: `Picture of ${who}`, loading: "lazy" });
  picture.addEventListener("error", () => picture.replaceWith(letters()));
  return picture;
}

function card(actor, dubs, warnings = []) {
  const id = lastPart(actor.name);
  const who = actor.consent?.subject ?? id;
  const section = element("section", { className: "card", "aria-labelledby": `name-${id}` });
  const withdraw = element("button", {}, "Withdraw consent");
  const erase = element("button", { className: "danger" }, "Erase person");
  const own = dubs.filter((dub) => dub.request.actor === actor.name || (dub.request.lines ?? []).some((line) => line.actor === actor.name));
  withdraw.addEventListener("click", async () => {
    const text = [`Work with the consent record of ${who} ends now, in all gateways, and new work is refused. A withdrawal cannot be taken back.`];
    if (!(await confirmed(`Withdraw the consent of ${who}?`, text, `Withdraw the consent of ${who}`))) return;
    await during(withdraw, async () => {
      const answer = await api("POST", "/v1/consents:revoke", { actor: actor.name });
      say(`The consent of ${who} is withdrawn since ${day(answer.revokeTime)}.`);
      section.replaceWith(card(await api("GET", `/v1/${actor.name}`), dubs));
    });
  });
  erase.addEventListener("click", async () => {
    const text = [
      `${who} (${id}) and everything that was made from the footage are erased: face, voice, networks and journals. Running work ends.`,
      "Finished videos stay where they are. An erasure cannot be taken back.",
    ];
    if (!(await confirmed(`Erase ${who}?`, text, `Erase ${who}`))) return;
    await during(erase, async () => section.replaceWith(receipt(who, await api("DELETE", `/v1/${actor.name}`))));
  });
  section.append(
    element(
      "div",
      { className: "head" },
      element("div", { className: "row" }, portrait(actor, who), element("h2", { id: `name-${id}` }, who, who === id ? "" : element("span", { className: "soft" }, ` ${id}`))),
      badge(actor),
    ),
    ...[actor.consentProblem, actor.damage].filter(Boolean).map((text) => element("p", { className: "bad" }, text)),
    ...warnings.map((text) => element("p", {}, capitalised(withUsersNames(text)))),
    element(
      "div",
      { className: "pair" },
      facts(consentRows(actor.consent)),
      facts([
        ["Enrolled", day(actor.createTime)],
        ["Method", actor.method],
        ["Frames learned from", actor.numEnrolledFrames],
        ["Dubs made", Number(actor.numDubs) ? `${actor.numDubs}, with those of batches and commands` : "none"],
        ["Newest dubs", own.length ? own.map((dub) => [element("a", { href: `/ui/dubs/${dub.id}` }, shownName(dub.request.outputUri)), element("br")]) : ""],
      ]),
    ),
    element("div", { className: "row end" }, actor.consent && !actor.consentProblem ? withdraw : null, erase),
  );
  return section;
}

function receipt(who, answer) {
  const file = new Blob([answer.receipt], { type: "application/json" });
  const section = element(
    "section",
    { className: "card", tabindex: "-1" },
    element("h2", {}, `${who} is erased`),
    element("p", {}, "Keep the signed receipt: dubstage receipt verify FILE checks it, and needs no gateway."),
    facts([
      ["Erased", day(answer.eraseTime)],
      ["Files erased", String(answer.erasedSha256.length)],
      ["Files kept for other people", String(answer.keptSha256.length)],
      ["Key", answer.keySha256],
      ["Signature", answer.signature],
    ]),
    element("p", { className: "row end" }, element("a", { className: "button primary", href: URL.createObjectURL(file), download: `erasure-${lastPart(answer.actor)}.json` }, "Save the receipt")),
  );
  say(`${who} is erased.`);
  queueMicrotask(() => section.focus());
  return section;
}

async function load() {
  const [page, { dubs: newest }] = await Promise.all([pageOf("/v1/actors", "actors", { pageSize: PAGE, pageToken: token }), newestDubs(NEWEST, "", true)]);
  const dubs = newest.filter((dub) => dub.result);
  token = page.token;
  refused("");
  list.lastElementChild.remove();
  // An enrolment may have ended meanwhile.
  const further = page.entries.filter((actor) => !document.getElementById(`name-${lastPart(actor.name)}`));
  list.append(...further.map((actor) => card(actor, dubs)));
  if (token) list.append(element("p", { className: "row end" }, element("button", { onclick: (event) => during(event.currentTarget, load) }, "Show more people")));
  if (!list.children.length) {
    list.append(element("section", { className: "card empty" }, element("h2", {}, "Nobody is enrolled"), element("p", { className: "soft" }, "A dub without an enrolled person learns the person from the footage, and keeps what it has learned for a day after the last use.")));
  }
}

/** Show the card of a person who has just been enrolled, as the first one. */
async function showEnrolled({ name, warnings }) {
  const section = card(await api("GET", `/v1/${name}`), [], warnings);
  section.tabIndex = -1;
  list.querySelector(".empty")?.remove();
  list.prepend(section);
  if (!document.activeElement.closest("form")) section.focus();
}

enrolling(showEnrolled).catch(refused);
load().catch(refused);
