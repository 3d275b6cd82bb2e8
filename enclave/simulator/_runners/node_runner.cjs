'use strict';
// Runs a Node workload: `node --require node_hook.cjs node_runner.cjs <file>`, in the workload's own process.
//
// It runs the file as the main module: as CommonJS if it parses as such, else as an ES module (import, top-level await)
// with `require` kept.

const fs = require('node:fs');
const Module = require('node:module');
const path = require('node:path');
const vm = require('node:vm');

const file = path.resolve(process.argv[2]);
process.argv.splice(1, 2, file);

function isCommonJS(source) {
  try {
    vm.compileFunction(source, ['exports', 'require', 'module', '__filename', '__dirname'], { filename: file });
    return true;
  } catch (error) {
    return !/import statement|import\.meta|Unexpected token 'export'|await is only valid/.test(String(error));
  }
}

if (isCommonJS(fs.readFileSync(file, 'utf8').replace(/^#!.*/, ''))) {
  Module.runMain();
} else {
  const main = file.replace(/\.js$/, '.mjs');
  fs.renameSync(file, main);
  process.argv[1] = main;
  globalThis.require = Module.createRequire(main);
  Module.runMain();
}
