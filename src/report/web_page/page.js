"use strict";

const find = (id) => document.getElementById(id);
const [file, status, result, preview] = ["file", "status", "result", "preview"].map(find);
const [attention, overlay, map, bars] = ["attention", "overlay", "map", "bars"].map(find);
// Wider images are drawn smoothly.
const SMALL = 64;
let latest = 0;
let pictures = [];

function tell(sentence, kind = "") {
  status.textContent = sentence;
  status.className = kind;
}

// What comes back of an image: the answer's JSON, or an error with the server's sentence.
async function answerOf(image) {
  const most = Number(file.dataset.mostBytes);
  if (image.size > most) {
    throw new Error(`The file is too large: ${(image.size / 1e6).toFixed(1)} MB, at most ${most / 1e6} MB are taken.`);
  }
  const form = new FormData();
  form.append("image", image);
  const response = await fetch("predict", { method: "POST", body: form }).catch(() => {
    throw new Error("The server does not answer: is predict.py still running?");
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Error(answer.error ?? `The server answers with error ${response.status}.`);
  }
  return answer;
}

// Of what was chosen, dropped or pasted.
function take(images) {
  if (images.length === 1) {
    predict(images[0]);
  } else {
    fail(images.length === 0 ? "There is no image file in it." : `One image at a time: these are ${images.length}.`);
  }
}

async function predict(image) {
  const number = ++latest;
  tell(`Looking at ${image.name}…`);
  result.setAttribute("aria-busy", "true");
  try {
    const answer = await answerOf(image);
    // An image that was chosen later has the page.
    if (number === latest) {
      show(image, answer);
    }
  } catch (error) {
    if (number === latest) {
      fail(error.message);
    }
  }
}

function fail(sentence) {
  // An answer that is under way comes too late.
  latest++;
  // One to another image must not stand below.
  result.hidden = true;
  result.removeAttribute("aria-busy");
  document.body.classList.add("empty");
  tell(sentence, "alarm");
}

function show(image, answer) {
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(image);
  find("name").textContent = image.name;
  bars.replaceChildren(...answer.top.map(barOf));
  pictures = answer.attention;
  attention.hidden = pictures.length === 0;
  find("no-attention").hidden = pictures.length > 0;
  const chosen = map.value;
  map.replaceChildren(...pictures.map(({ name }) => new Option(titleOf(name), name)));
  if (pictures.some(({ name }) => name === chosen)) {
    map.value = chosen;
  }
  showMap();
  result.hidden = false;
  result.removeAttribute("aria-busy");
  document.body.classList.remove("empty");
  const [first] = answer.top;
  tell(`${image.name}: ${first.class}, ${percent(first.probability)}`, "done");
}

function showMap() {
  const picture = pictures.find(({ name }) => name === map.value);
  if (picture) {
    overlay.src = picture.source;
  }
}

// Of cct_sequence_pool: all maps are of one family.
const titleOf = (name) => name.split("_").slice(1).join(" ");

const percent = (share) => `${(100 * share).toFixed(2)} %`;

function barOf({ class: name, probability }) {
  const share = elementOf("div", "share");
  share.style.width = `${100 * probability}%`;
  const words = elementOf("div", "words");
  words.append(elementOf("bdi", "name", name), " ", elementOf("span", "percent", percent(probability)));
  const bar = document.createElement("li");
  bar.append(words, elementOf("div", "track", share));
  return bar;
}

// What is given as text stays text.
function elementOf(tag, className, ...content) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...content);
  return element;
}

file.addEventListener("change", () => {
  const images = [...file.files];
  // The same file can be chosen again.
  file.value = "";
  if (images.length > 0) {
    take(images);
  }
});
map.addEventListener("change", showMap);
preview.addEventListener("load", () => preview.classList.toggle("small", preview.naturalWidth <= SMALL));
document.addEventListener("paste", (event) => take(event.clipboardData.files));

// The whole page takes what is dropped: a miss would make the browser leave it.
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dragging", kind === "dragover");
    if (kind === "drop") {
      take(event.dataTransfer.files);
    }
  });
}
