"""Pages in the browser, below `/ui` of the gateway's HTTP server (`dubstage ui`, or any gateway with DUBSTAGE_HTTP_PORT).

A page is a Jinja template with one JavaScript module. The module calls the routes `/v1` of the same server with the cookie of the
sign-in, so tokens, tenants, limits, audit and errors are those of the RPCs. There is no build step and no network: the files of
`static/` are sent as they are. htmx is left out, because all that changes on these pages is drawn by the browser itself (uploads,
recording, players, curves), and the modules together are smaller than htmx.

To add a page:

1. Write `templates/NAME.html.j2`, which extends `base.html.j2` and fills the blocks `body` and `script`. Jinja escapes all values.
   The Content-Security-Policy allows no inline script, no inline style and no attribute `style` or `on...`.
2. Write `static/NAME.js`, a module. Take `api`, `element`, `refused` and the other functions of `static/page.js`: `api("GET",
   "/v1/...")` returns JSON or throws a `Refusal` whose message is the sentence for the user; `element` builds nodes from text, so
   that no name of a file is read as markup.
3. Add a `Page` to PAGES in `gateway/ui/pages.py`. `nav` puts the page into the navigation. `values` computes values for the
   template on the server, where `Caller.call` calls an RPC as the user who asks.

Forms share `templates/forms.html.j2`: `static/upload.js` takes files, `static/consent.js` the consent record, and `refusedAt` of
`static/page.js` shows a refusal at the control whose `data-field` has the field's name.

Colours, cards, tables, buttons and forms are classes of `static/style.css`.
"""
