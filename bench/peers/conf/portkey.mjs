// Loaded before Portkey (node --import). Its release 1.15.2 adds headers to the answer that
// fetch returns, which with the @hono/node-server that npm installs beside it are immutable:
// every stream would be answered 500. Here fetch's answers get headers that can be changed.
const fetched = globalThis.fetch;
const Native = globalThis.Response;
globalThis.fetch = async (...args) => {
  const r = await fetched(...args);
  return new Native(r.body, { status: r.status, statusText: r.statusText, headers: new Headers(r.headers) });
};
