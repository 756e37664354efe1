// Signs in with the token behind # of the address that `dubstage ui` prints. Browsers do not send this part of an address. A user who
// comes from a page of another origin, or who is signed in already, decides.
const token = decodeURIComponent(location.hash.slice(1));
if (token) {
  history.replaceState(null, "", location.pathname + location.search);
  document.querySelector("#token").value = token;
  const form = document.querySelector("#sign-in");
  if ("atOnce" in form.dataset) form.submit();
  else document.querySelector("#from-link").hidden = false;
}
