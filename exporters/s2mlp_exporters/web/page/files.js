/** What was dropped or chosen: an image, or a bundle. */

/** Every file of a drop, with its path; folders are read to the bottom. */
export async function droppedFiles(transfer) {
  // All must be asked for before anything is awaited: the transfer is emptied after the event.
  const dropped = [...transfer.items]
    .filter((item) => item.kind === "file")
    .map((item) => ({ entry: item.webkitGetAsEntry(), file: item.getAsFile() }));
  const parts = await Promise.all(
    dropped.map(({ entry, file }) => (entry?.isDirectory ? walk(entry) : [{ path: file.name, file }])),
  );
  return parts.flat();
}

/** The files of an input, with the paths that a chosen folder gives them. */
export function chosenFiles(list) {
  return [...list].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
}

export function isBundle(files) {
  return files.some(({ path }) => path.includes("/") || path === "manifest.json");
}

async function walk(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ path: entry.fullPath.slice(1), file }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found; // they come a hundred at a time
    found.push(...(await Promise.all(some.map(walk))).flat());
  }
}
