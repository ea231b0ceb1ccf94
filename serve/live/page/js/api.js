// Commands by HTTP; each says in one sentence what is wrong.

// Paths are relative to the page: a proxy may show it below a prefix, such as /proxy/8001/.
export const addressOf = (path) => new URL(path, document.baseURI);

let viewerKey = "";

export const introduce = (key) => { viewerKey = key; };

export async function post(path, body) {
  const headers = { "X-Rlcar-Viewer": viewerKey, "X-CSRF-Token": cookie("rlcar_csrf") };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  return told(await fetch(addressOf(path), { method: "POST", headers, body: body === undefined ? undefined : JSON.stringify(body) }));
}

export const get = async (path) => told(await fetch(addressOf(path), { headers: { Accept: "application/json" } }));

async function told(response) {
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error || `the server answered ${response.status}`);
  return answer;
}

function cookie(name) {
  const found = document.cookie.split("; ").find((part) => part.startsWith(`${name}=`));
  return found ? decodeURIComponent(found.slice(name.length + 1)) : "";
}
