"use strict";
// Names of files and classes only ever become text nodes, attributes by setAttribute, or JSON: never markup.
const $ = (id) => document.getElementById(id);
const tab = String(crypto.getRandomValues(new Uint32Array(2)));
const made = {};  // what was labelled here and has not been answered yet: number -> name
const texts = new Map();
let state = null, pinned = null, shown = null, events = 0, skipped = new Set(), sending = Promise.resolve(), waiting = 0, drawn = "";

function element(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "onclick") node.addEventListener("click", value);
    else if (value !== false && value != null) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

function media(item, size) {
  if (state.kind === "text") {
    const place = element("p"), address = `sample/${item.number}/${size}`;
    const put = (text) => { place.textContent = text; };
    if (texts.has(address)) put(texts.get(address));
    else fetch(address).then((answer) => answer.text()).then((text) => { texts.set(address, text); put(text); }, () => {});
    return place;
  }
  const image = element("img", {alt: item.path, loading: size === "large" ? "eager" : "lazy", draggable: "false"});
  image.addEventListener("load", () => image.classList.toggle("sharp", image.naturalWidth <= 128));
  image.addEventListener("error", () => image.replaceWith(item.path));
  image.src = `sample/${item.number}/${size}`;
  if (state.kind !== "audio" || size !== "large") return image;
  return element("span", {class: "sound"}, image, element("audio", {controls: true, autoplay: true, src: `sample/${item.number}/sound`}));
}

function next() {
  if (pinned) return pinned;
  const open = state.queue.filter((item) => !(item.number in made));
  return open.find((item) => !skipped.has(item.number)) || (skipped.clear(), open[0]) || null;
}

const labelOf = (item) => item.number in made ? made[item.number] : item.label;
const percent = (part) => `${Math.round(100 * part)}%`;
const count = (number) => number.toLocaleString("en");

function render() {
  if (!state) return;
  const {given, total, unsure, classes} = state;
  const spread = classes.filter((one) => one.given).length > 1;
  const labels = `${count(given)} label${given === 1 ? "" : "s"}`;
  $("progress").textContent = spread
    ? `${labels} → ${percent((total - unsure) / total)} of ${count(total)}, ${count(unsure)} unsure${state.busy ? " …" : ""}`
    : `${labels} of ${count(total)}: they spread to the rest once two classes have one`;
  document.title = `${labels} · Label`;
  $("done").style.width = percent(spread ? (total - unsure) / total : 0);
  $("unsure").style.width = percent(spread ? unsure / total : 0);
  if (state.message) say(state.message);
  renderCurrent();
  renderWall();
}

function renderCurrent() {
  const item = next(), label = item && labelOf(item);
  if (!item || !shown || shown.number !== item.number) {
    $("sample").replaceChildren(item ? media(item, "large") : "");
    $("current").setAttribute("data-number", item ? item.number : "");
  }
  shown = item;
  $("path").textContent = item ? item.path : state.busy ? "Looking for samples …" : "Nothing is left to suggest.";
  $("guess").textContent = !item ? "" : label ? `· labelled ${label}` : item.guess ? `· ${item.guess}? ${percent(item.confidence)} sure` : "";
  $("accept").disabled = !item || !item.guess || item.guess === label;
  $("remove").disabled = !item || !label;
  $("skip").disabled = !item;
  const focused = document.activeElement && document.activeElement.dataset.name;
  $("classes").replaceChildren(...state.classes.map((one) => {
    const button = element("button", {
      type: "button", "data-name": one.name, title: one.name, class: label === one.name ? "is" : null,
      "aria-keyshortcuts": one.key || null, onclick: () => give(one.name), disabled: !item,
    }, ...(one.key ? [element("kbd", {}, one.key)] : []), element("span", {}, one.name), element("small", {}, count(one.all)));
    return button;
  }));
  if (focused !== undefined) [...$("classes").children].find((button) => button.dataset.name === focused)?.focus();
}

const TITLES = {
  doubtful: "Check these: the other labels contradict theirs", unsure: "Unsure", given: "Labelled by hand",
};

function renderWall() {
  const wanted = `${state.version} ${pinned ? pinned.number : ""}`;
  if (drawn === wanted) return;
  drawn = wanted;
  const focused = document.activeElement && document.activeElement.dataset.thumb;
  $("wall").replaceChildren(...state.groups.flatMap((group) => {
    const all = count(group.count), few = group.items.length < group.count && group.kind !== "given" ? ", the least sure first" : "";
    const title = element("h2", {}, `${TITLES[group.kind] || group.name} · ${all}${few}`);
    const thumbs = group.items.map((item) => {
      const under = group.kind === "class" ? percent(item.confidence)
        : group.kind === "given" ? labelOf(item) || "" : `${item.label ? `${item.label}, rather ` : ""}${item.guess || "no label near"}`;
      return element("button", {
        type: "button", title: item.path, "data-thumb": `${group.kind} ${item.number}`, "data-number": item.number,
        class: pinned && pinned.number === item.number ? "is" : null, onclick: () => pin(item),
      }, media(item, "small"), element("small", {}, under));
    });
    return [title, element("div", {class: `thumbs ${state.kind === "text" ? "texts" : ""}`}, ...thumbs)];
  }));
  if (focused) [...$("wall").querySelectorAll("button")].find((one) => one.dataset.thumb === focused)?.focus({preventScroll: true});
}

function pin(item) {
  pinned = item;
  render();
  if ($("panel").getBoundingClientRect().top < 0) $("panel").scrollIntoView();
}

function say(text) {
  $("message").hidden = !text;
  $("message").textContent = text;
}

function give(name) {
  const item = next();
  if (!item) return;
  say("");
  const before = labelOf(item);
  made[item.number] = name;
  pinned = null;
  skipped.delete(item.number);
  render();
  send({kind: "label", number: item.number, name, before}, item);
}

function send(action, item) {
  const body = JSON.stringify({...action, tab, event: `${tab} ${events++}`});
  waiting++;
  sending = sending.then(async () => {
    for (;;) {
      try {
        const answer = await fetch("act", {method: "POST", body});
        if (answer.ok || answer.status === 409) {
          const found = await answer.json();
          if (item && made[item.number] === action.name) delete made[item.number];
          if (found.refused) {
            say(found.refused);
            if (item) pinned = await (await fetch(`sample/${item.number}/item`)).json();
          }
          if (action.kind === "undo" && found.acted) pinned = found.acted;
          take(found);
        } else say(await answer.text());
        break;
      } catch {  // the same event is never done twice, so it can be sent again
        say("Not saved yet: the server does not answer. What was saved before is safe; trying again …");
        await new Promise((done) => setTimeout(done, 1500));
      }
    }
    waiting--;
  });
}

function take(found) {
  if (!state || found.version >= state.version) state = found;
  render();
}

async function poll() {
  try {
    const answer = await fetch(`state?version=${state ? state.version : -1}`);
    if (answer.status === 200) take(await answer.json());
    if (!waiting && answer.ok && $("message").textContent.startsWith("The server")) say("");
  } catch {
    if (!waiting) say("The server has ended. Every label that was given is saved.");
  }
  setTimeout(poll, !state || state.busy ? 400 : 2500);
}

function undo() { say(""); pinned = null; send({kind: "undo"}); }
function skip() { const item = next(); if (item) { pinned = null; skipped.add(item.number); render(); } }
function accept() { const item = next(); if (item && item.guess) give(item.guess); }
function remove() { const item = next(); if (item && labelOf(item)) give(null); }

$("undo").addEventListener("click", undo);
$("skip").addEventListener("click", skip);
$("accept").addEventListener("click", accept);
$("remove").addEventListener("click", remove);
$("new").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  if (name) give(name);
  $("name").value = "";
  $("name").blur();
});
document.addEventListener("keydown", (event) => {
  if (event.target === $("name")) {
    if (event.key === "Escape") { $("name").value = ""; $("name").blur(); }
    return;
  }
  if (!state || event.altKey || event.repeat) return;
  const command = event.ctrlKey || event.metaKey;
  if (command && event.key.toLowerCase() === "z" || event.key === "Backspace") { event.preventDefault(); return undo(); }
  if (command) return;
  if (event.key === "ArrowRight") { event.preventDefault(); return skip(); }
  if (event.key === "Delete") return remove();
  if (event.key === "Escape") { pinned = null; return render(); }
  if (event.key === "Enter" && !(event.target instanceof HTMLButtonElement)) return accept();
  if (event.key.length !== 1 || event.key === " ") return;
  const one = state.classes.find((each) => each.key === event.key.toLowerCase());
  event.preventDefault();
  if (one) return give(one.name);
  $("name").focus();  // a key of no class begins the name of a new one
  $("name").value = event.key === "+" ? "" : event.key;
});
poll();
