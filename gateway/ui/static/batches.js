// The list of batches, with the progress of each.
import { api, day, during, element, lastPart, refused } from "./page.js";

const PAGE = 20;
const list = document.querySelector("#list");
const body = element("tbody");
let token = "";

function row(batch) {
  const id = lastPart(batch.name);
  const { progress } = batch;
  const ended = Math.round(100 * (progress.fraction ?? 0));
  const decided = Number(progress.numApproved) + Number(progress.numRejected);
  return element(
    "tr",
    {},
    element("td", {}, element("a", { href: `/ui/batches/${encodeURIComponent(id)}` }, id)),
    element("td", { className: "soft" }, day(batch.createTime)),
    element("td", {}, String(batch.numShots)),
    element("td", {}, `${ended} % ended`),
    element("td", {}, Number(progress.numFailed) ? element("span", { className: "bad" }, `${progress.numFailed} failed`) : ""),
    element("td", {}, `${decided} decided, ${progress.numRejected} rejected`),
  );
}

async function load() {
  const page = await api("GET", `/v1/batches?pageSize=${PAGE}${token && `&pageToken=${encodeURIComponent(token)}`}`);
  token = page.nextPageToken;
  for (const { name } of page.batches) body.append(row(await api("GET", `/v1/${name}`)));
  if (!body.children.length) {
    list.replaceChildren(
      element(
        "div",
        { className: "empty" },
        element("h2", {}, "No batches yet"),
        element("p", { className: "soft" }, "A batch is a list of shots that are dubbed without a person beside them: see docs/batch.md."),
      ),
    );
    return;
  }
  const head = ["Batch", "Begun", "Shots", "Progress", "Failed", "Review"].map((text) => element("th", { scope: "col" }, text));
  list.replaceChildren(
    element("table", { className: "stacked" }, element("thead", {}, element("tr", {}, head)), body),
    ...(token ? [element("p", { className: "row end" }, element("button", { onclick: (event) => during(event.currentTarget, load) }, "Show more batches"))] : []),
  );
}

await load().catch(refused);
