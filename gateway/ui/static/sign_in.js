// Signs in with the token behind # of the address that `dubstage ui` prints. Browsers do not send this part of an address.
const token = decodeURIComponent(location.hash.slice(1));
if (token) {
  history.replaceState(null, "", location.pathname + location.search);
  document.querySelector("#token").value = token;
  document.querySelector("#sign-in").submit();
}
