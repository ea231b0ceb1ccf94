// HTTP commands; a failed one throws an Error with the server's explanation.

// Paths are relative to the page, because a proxy may serve it below a prefix such as /proxy/8001/.
export const addressOf = (path) => new URL(path, document.baseURI);

let viewerKey = "";

export const setViewerKey = (key) => { viewerKey = key; };

export async function post(path, body) {
  const headers = { "X-Rlcar-Viewer": viewerKey, "X-CSRF-Token": cookie("rlcar_csrf") };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  return parseAnswer(await fetch(addressOf(path), { method: "POST", headers, body: body === undefined ? undefined : JSON.stringify(body) }));
}

export const get = async (path) => parseAnswer(await fetch(addressOf(path), { headers: { Accept: "application/json" } }));

async function parseAnswer(response) {
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error || `the server answered ${response.status}`);
  return answer;
}

function cookie(name) {
  const found = document.cookie.split("; ").find((part) => part.startsWith(`${name}=`));
  return found ? decodeURIComponent(found.slice(name.length + 1)) : "";
}
