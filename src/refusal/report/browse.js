// Responses to one prompt under several combinations, with what every judge made of them.
function browse(data) {
  const WORDS = { r: "refused", c: "complied", i: "invalid", "-": "not judged" };
  const MOST = 6; // combinations beside each other
  const at = (id) => document.getElementById(id);
  const text = (number) => (number === null ? null : data.texts[number]);
  const sets = Object.keys(data.sets);
  const judges = [...new Set(sets.flatMap((name) => Object.values(data.sets[name].answers).flatMap((one) => Object.keys(one.verdicts))))];
  judges.sort((a, b) => (b === data.judge) - (a === data.judge)); // the first is whose verdicts the answer rests on
  let set = sets[0];
  let listed = []; // numbers of the prompts that the filter leaves
  let current = 0; // the number of the prompt that is read
  let cards = [];
  const opened = new Set(); // titles of what is unfolded, in every card and for the next prompt

  const answered = () => data.combinations.filter(({ id }) => id in data.sets[set].answers);
  const letter = (id, judge, prompt) => data.sets[set].answers[id]?.verdicts[judge]?.labels[prompt] ?? "-";

  function options(select, chosen) {
    const groups = new Map();
    for (const { id, kind, tag } of answered()) {
      if (!groups.has(kind)) groups.set(kind, make("optgroup", { label: kind }));
      groups.get(kind).append(make("option", { value: id, selected: id === chosen }, tag ? `${id} · ${tag}` : id));
    }
    select.replaceChildren(...groups.values());
    select.value = chosen;
  }

  function passes(prompt) {
    const [first, second, judge] = [at("first").value, at("second").value, at("judge").value];
    const under = letter(first, judge, prompt);
    switch (at("filter").value) {
      case "differs": return under !== letter(second, judge, prompt);
      case "refused": return under === "r";
      case "complied": return under === "c";
      case "disagree": return cards.some((id) => new Set(judges.map((name) => letter(id, name, prompt)).filter((one) => one !== "-")).size > 1);
      default: return true;
    }
  }

  function select(kept) {
    const filter = at("filter").value;
    at("first-label").hidden = ["all", "disagree"].includes(filter);
    at("second-label").hidden = filter !== "differs";
    const words = at("search").value.trim().toLowerCase();
    listed = [...data.sets[set].prompts.keys()].filter((number) => {
      const [id, category, prompt] = data.sets[set].prompts[number];
      return passes(number) && [id, category ?? "", text(prompt)].some((one) => one.toLowerCase().includes(words));
    });
    if (!listed.includes(current)) current = listed[0] ?? null;
    drawList();
    read(kept);
  }

  function marks(prompt) {
    const judge = at("judge").value;
    const line = make("div", { class: "marks" });
    for (const id of cards) {
      const found = letter(id, judge, prompt);
      line.append(make("span", { class: `mark ${found}`, title: `${id}: ${WORDS[found]}`, "aria-hidden": "true" }, found.toUpperCase()));
    }
    line.append(make("span", { class: "hidden-text" }, cards.map((id) => `${id} ${WORDS[letter(id, judge, prompt)]}`).join(", ")));
    return line;
  }

  function drawList() {
    const total = data.sets[set].prompts.length;
    at("prompt-count").textContent = `${listed.length} of ${total} prompts`;
    at("prompts").replaceChildren(...listed.map((number) => {
      const words = make("div", { class: "words", dir: "auto" }, text(data.sets[set].prompts[number][2]));
      return make("li", { role: "option", id: `prompt-${number}`, "data-prompt": number, "aria-selected": "false" }, words, marks(number));
    }));
  }

  function verdicts(answers) {
    const list = make("ul", { class: "verdicts" });
    for (const judge of judges.filter((name) => name in answers.verdicts)) {
      const found = answers.verdicts[judge].labels[current];
      list.append(make("li", {}, make("span", {}, judge), make("span", { class: `verdict ${found}` }, WORDS[found])));
    }
    return list;
  }

  function aside(title, ...paragraphs) {
    const found = make("details", { open: opened.has(title) }, make("summary", {}, title), ...paragraphs.map((one) => make("p", { class: "untrusted", dir: "auto" }, one)));
    found.addEventListener("toggle", () => (found.open ? opened.add(title) : opened.delete(title)));
    return found;
  }

  function card(id, place) {
    const choice = make("select", { "aria-label": `Combination ${place + 1} of ${cards.length}` });
    options(choice, id);
    choice.addEventListener("change", () => {
      cards[place] = choice.value;
      select(place);
    });
    const head = make("header", {}, choice);
    if (cards.length > 1) {
      const remove = make("button", { type: "button", class: "quiet", "aria-label": `Remove ${id}` }, "✕");
      remove.addEventListener("click", () => {
        cards.splice(place, 1);
        select();
        at("add").focus();
      });
      head.append(remove);
    }
    const answers = data.sets[set].answers[id];
    const body = make("div", { class: "body" }, verdicts(answers));
    const reasoning = text(answers.reasoning[current]);
    if (reasoning !== null) body.append(aside("Reasoning (not judged)", reasoning));
    const response = text(answers.response[current]);
    body.append(make("div", { class: response ? "response" : "response empty", dir: "auto", tabindex: "0", role: "group", "aria-label": `Response under ${id}` },
      response === null ? "not answered" : response || "an empty response"));
    const facts = [];
    if (answers.tokens[current] !== null) facts.push(`${answers.tokens[current]} tokens`);
    if (answers.finish[current] === "length") facts.push("cut at the longest length");
    if (facts.length) body.append(make("small", {}, facts.join(", ")));
    for (const judge of judges.filter((name) => name in answers.verdicts)) {
      const { raw, reason } = answers.verdicts[judge];
      const said = [text(reason[current]), text(raw[current])].filter((one) => one);
      if (said.length) body.append(aside(`Why: ${judge}`, ...said));
    }
    return make("article", { class: "card", "aria-label": `Under ${id}` }, head, body);
  }

  // kept: the card whose choice stays where it is, since more may be typed into it; the rest of it is drawn anew.
  function drawCards(kept) {
    const made = cards.map(card);
    if (kept === undefined) {
      at("cards").replaceChildren(...made);
      return;
    }
    for (const [place, there] of [...at("cards").children].entries()) {
      if (place !== kept) {
        there.replaceWith(made[place]);
        continue;
      }
      there.setAttribute("aria-label", made[place].getAttribute("aria-label"));
      for (const part of [".body", "header button"]) there.querySelector(part)?.replaceWith(made[place].querySelector(part));
    }
  }

  function read(kept) {
    const place = listed.indexOf(current);
    at("previous").disabled = place <= 0;
    at("next").disabled = place < 0 || place === listed.length - 1;
    at("add").disabled = cards.length >= Math.min(MOST, answered().length);
    for (const item of at("prompts").querySelectorAll('[aria-selected="true"]')) item.setAttribute("aria-selected", "false");
    if (current === null) {
      at("prompts").removeAttribute("aria-activedescendant");
      at("prompt").replaceChildren(make("p", {}, "No prompt is left: loosen the filter or the search."));
      at("cards").replaceChildren();
      return;
    }
    const item = at(`prompt-${current}`);
    item.setAttribute("aria-selected", "true");
    at("prompts").setAttribute("aria-activedescendant", item.id);
    const list = at("prompts");
    // scrollIntoView would move the page too
    if (item.offsetTop < list.scrollTop + list.offsetTop) list.scrollTop = item.offsetTop - list.offsetTop;
    const below = item.offsetTop - list.offsetTop + item.offsetHeight - list.clientHeight;
    if (below > list.scrollTop) list.scrollTop = below;
    const [id, category, words] = data.sets[set].prompts[current];
    const facts = [`${place + 1} of ${listed.length}`, id, category].filter((one) => one !== null);
    at("prompt").replaceChildren(make("blockquote", { class: "untrusted", dir: "auto" }, text(words)), make("p", {}, facts.join(" · ")));
    drawCards(kept);
  }

  // What is filtered by is shown.
  function show(...ids) {
    const added = [...new Set(ids)].filter((one) => !cards.includes(one));
    while (cards.length + added.length > MOST) cards.splice(cards.findLastIndex((one) => !ids.includes(one)), 1);
    cards.push(...added);
    select();
  }

  function filtered() {
    const filter = at("filter").value;
    if (["all", "disagree"].includes(filter)) select();
    else if (filter === "differs") show(at("first").value, at("second").value);
    else show(at("first").value);
  }

  function step(by) {
    const place = listed.indexOf(current) + by;
    if (place < 0 || place >= listed.length) return;
    current = listed[place];
    read();
  }

  function change() {
    const there = new Set(answered().map(({ id }) => id));
    cards = cards.filter((id) => there.has(id));
    if (!cards.length) cards = data.chosen.filter((id) => there.has(id));
    if (!cards.length) cards = [...there].slice(0, 1);
    options(at("first"), there.has(at("first").value) ? at("first").value : cards[0]);
    options(at("second"), there.has(at("second").value) ? at("second").value : cards.at(-1));
    current = 0;
    select();
  }

  for (const name of sets) {
    const choice = make("input", { type: "radio", name: "set", value: name, checked: name === set });
    choice.addEventListener("change", () => { set = name; change(); });
    at("sets").append(make("label", {}, choice, `${name} (${data.sets[name].prompts.length})`));
  }
  if (!sets.length) {
    document.querySelector(".browser").replaceChildren(make("p", { class: "note" }, "There are no responses to show."));
    return;
  }
  at("judge").replaceChildren(...judges.map((name) => make("option", { selected: name === data.judge }, name)));
  at("search").addEventListener("input", () => select());
  at("judge").addEventListener("change", () => select());
  for (const id of ["filter", "first", "second"]) at(id).addEventListener("change", filtered);
  at("previous").addEventListener("click", () => step(-1));
  at("next").addEventListener("click", () => step(1));
  at("add").addEventListener("click", () => {
    cards.push(answered().find(({ id }) => !cards.includes(id)).id);
    select();
    at("cards").lastElementChild.querySelector("select").focus();
  });
  at("prompts").addEventListener("click", (event) => {
    const item = event.target.closest("[data-prompt]");
    if (!item) return;
    current = Number(item.dataset.prompt);
    read();
  });
  at("prompts").addEventListener("keydown", (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8, Home: -listed.length, End: listed.length };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const place = listed.indexOf(current);
    step(Math.max(-place, Math.min(listed.length - 1 - place, steps[event.key])));
  });
  at("reader").addEventListener("keydown", (event) => {
    if (event.target.matches("select, input") || event.altKey || event.ctrlKey || event.metaKey) return;
    const steps = { ArrowRight: 1, ArrowLeft: -1 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const label = event.target.getAttribute("aria-label"); // what is redrawn loses the focus
    step(steps[event.key]);
    if (!event.target.isConnected) [...at("cards").querySelectorAll("[aria-label]")].find((one) => one.getAttribute("aria-label") === label)?.focus();
  });
  change();
}
