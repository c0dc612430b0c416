// A person's chat with a bot: what the server says of it, and what the person does.

const main = document.querySelector("main");
const bot = main.dataset.bot;
const person = JSON.parse(main.dataset.person);
const base = "/sim/bots/" + encodeURIComponent(bot);
const list = document.getElementById("messages");
const keyboard = document.getElementById("keyboard");
const start = document.getElementById("start");
const trouble = document.getElementById("trouble");
const field = document.getElementById("text");

// linked is what the link wants to be told to the bot, until it is.
let linked = main.dataset.start;

async function send(path, body) {
  trouble.textContent = "";
  try {
    const res = await fetch(base + path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ user: person, ...body }),
    });
    if (!res.ok) {
      trouble.textContent = (await res.json()).error;
    }
    return res.ok;
  } catch (err) {
    trouble.textContent = main.dataset.away + err.message;
    return false;
  }
}

// marks are the tags of messages in HTML that are shown; of others only the text is.
const marks = new Set(["B", "STRONG", "I", "EM", "U", "INS", "S", "STRIKE", "DEL", "CODE", "PRE", "BLOCKQUOTE"]);

function marked(from, to) {
  for (const node of from.childNodes) {
    if (node.nodeType === Node.TEXT_NODE) {
      to.append(node.textContent);
    } else if (node.nodeType === Node.ELEMENT_NODE) {
      let into = to;
      if (marks.has(node.tagName)) {
        into = document.createElement(node.tagName);
        to.append(into);
      } else if (node.tagName === "A" && /^https?:/.test(node.getAttribute("href") ?? "")) {
        into = link(node.getAttribute("href"));
        to.append(into);
      }
      marked(node, into);
    }
  }
}

function link(href) {
  const a = document.createElement("a");
  a.href = href;
  a.target = "_blank";
  a.rel = "noopener noreferrer";
  return a;
}

// text shows addresses as links, as Telegram does.
function plain(text, to) {
  for (const [n, part] of text.split(/(https?:\/\/[^\s<>"]+[^\s<>".,;:!?)])/).entries()) {
    if (n % 2 === 1) {
      const a = link(part);
      a.textContent = part;
      to.append(a);
    } else {
      to.append(part);
    }
  }
}

function inlineButton(message, b) {
  if (/^https?:/.test(b.url ?? "")) {
    const a = link(b.url);
    a.className = "button";
    a.textContent = b.text;
    return a;
  }
  const button = document.createElement("button");
  button.textContent = b.text;
  button.disabled = b.callback_data === undefined;
  button.addEventListener("click", () => send("/presses", { message_id: message.id, data: b.callback_data }));
  return button;
}

function rows(of, make) {
  const out = document.createElement("div");
  out.className = "rows";
  for (const row of of) {
    const line = document.createElement("div");
    line.append(...row.map(make));
    out.append(line);
  }
  return out;
}

function shown(m) {
  const item = document.createElement("article");
  item.className = m.from_bot ? "theirs" : "mine";
  item.dataset.id = m.id;
  item.setAttribute("aria-label", m.from_bot ? "@" + bot : person.name);
  const text = document.createElement("div");
  text.className = "text";
  if (m.parse_mode === "HTML") {
    marked(new DOMParser().parseFromString(m.text, "text/html").body, text);
  } else {
    plain(m.text, text);
  }
  item.append(text);
  if (m.edits) {
    const note = document.createElement("small");
    note.textContent = main.dataset.edited;
    item.append(note);
  }
  if (m.reply_markup?.inline_keyboard) {
    item.append(rows(m.reply_markup.inline_keyboard, (b) => inlineButton(m, b)));
  }
  return item;
}

// showKeyboard shows the newest keyboard that the bot has sent, unless it took it away.
function showKeyboard(messages) {
  keyboard.replaceChildren();
  keyboard.hidden = true;
  const n = messages.findLastIndex((m) => m.from_bot && (m.reply_markup?.keyboard || m.reply_markup?.remove_keyboard));
  const markup = messages[n]?.reply_markup;
  const used = messages.slice(n + 1).some((m) => !m.from_bot);
  if (!markup?.keyboard || (markup.one_time_keyboard && used)) {
    return;
  }
  keyboard.append(
    rows(markup.keyboard, (b) => {
      const button = document.createElement("button");
      button.textContent = b.text ?? b;
      button.addEventListener("click", () => send("/messages", { text: button.textContent }));
      return button;
    }),
  );
  keyboard.hidden = false;
}

// known are the messages that are shown, as JSON, by id: only what has changed is drawn again, so that
// a reader hears new ones only, and a button that has the focus keeps it.
const known = new Map();

function show(chat) {
  const ids = new Set(chat.messages.map((m) => String(m.id)));
  for (const item of [...list.children]) {
    if (!ids.has(item.dataset.id)) {
      known.delete(item.dataset.id);
      item.remove();
    }
  }
  for (const m of chat.messages) {
    const id = String(m.id);
    const text = JSON.stringify(m);
    if (known.get(id) === text) {
      continue;
    }
    const old = [...list.children].find((item) => item.dataset.id === id);
    if (old) {
      old.replaceWith(shown(m));
    } else {
      list.append(shown(m));
    }
    known.set(id, text);
  }
  showKeyboard(chat.messages);
  start.hidden = !linked && chat.messages.length > 0;
  list.lastElementChild?.scrollIntoView({ block: "nearest" });
}

start.addEventListener("click", async () => {
  if (await send("/messages", { text: linked ? "/start " + linked : "/start" })) {
    linked = "";
    start.hidden = true;
    const here = new URL(location.href);
    here.searchParams.delete("start");
    history.replaceState(null, "", here);
    field.focus();
  }
});

document.getElementById("write").addEventListener("submit", async (e) => {
  e.preventDefault();
  if (await send("/messages", { text: field.value })) {
    field.value = "";
  }
});

field.addEventListener("keydown", (e) => {
  if (e.key === "Enter" && !e.shiftKey && !e.isComposing) {
    e.preventDefault();
    e.target.form.requestSubmit();
  }
});

const events = new EventSource(base + "/chats/" + person.id + "/events");
events.addEventListener("message", (e) => show(JSON.parse(e.data)));
