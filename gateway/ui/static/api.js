// The page of the OpenAPI document, by Swagger UI. Nothing is loaded from other hosts, and no token is kept in the browser.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null, defaultModelsExpandDepth: 0 });
