/* What the theme leaves to do for those who use its drawers and menus. */
"use strict";

/* On a phone, contents and navigation are drawers, each with its button. */
for (const side of ["primary", "secondary"]) {
  const drawer = document.querySelector(`#pst-${side}-sidebar-modal`);
  const button = document.querySelector(`.${side}-toggle`);
  /* What was chosen is behind the drawer. */
  drawer?.addEventListener("click", (event) => {
    if (event.target.closest("a")) drawer.close("followed");
  });
  /* The theme takes the focus from the button before it remembers what had it. */
  drawer?.addEventListener("close", () => {
    if (drawer.returnValue !== "followed") button.focus();
    drawer.returnValue = "";
  });
}

/* The theme takes the focus from the button of the colour modes when it opens their menu,
   whose keys are those of the button. It would get lost with the menu, too. */
for (const button of document.querySelectorAll(".theme-switch-button")) {
  button.addEventListener("click", () => button.focus());
  for (const choice of button.parentNode.querySelectorAll(".theme-change-button"))
    choice.addEventListener("click", () => button.focus());
}
