// What browsing needs, unpacked once. Nothing of it is ever read as HTML: it is put in place as text.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

async function unpack() {
  const packed = atob(document.getElementById("data").textContent);
  const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

if ("DecompressionStream" in window) {
  unpack().then((data) => {
    for (const element of document.querySelectorAll(".needs-script")) element.hidden = false;
    tabulate(data);
    browse(data);
    document.documentElement.dataset.ready = "";
  });
} else {
  document.getElementById("too-old").hidden = false;
}
