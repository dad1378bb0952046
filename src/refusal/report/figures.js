// A plot fills the window while its dialog is open; there is one of it, since what it draws with has ids.
{
  const dialog = document.getElementById("large");
  const place = document.getElementById("large-plot");
  let home = null;
  for (const button of document.querySelectorAll(".enlarge")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const figure = button.closest("figure");
      home = figure.querySelector(".canvas");
      document.getElementById("large-title").textContent = figure.querySelector("h3").textContent;
      place.append(home.firstElementChild);
      dialog.showModal();
    });
  }
  dialog?.addEventListener("close", () => home.append(place.firstElementChild));
  document.getElementById("large-close")?.addEventListener("click", () => dialog.close());
}
