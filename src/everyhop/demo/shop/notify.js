// SPDX-License-Identifier: Apache-2.0
// Notifications: Node's own http module on the Unix socket that everyhop names, with one WebSocket door.
'use strict';
const http = require('node:http');
const { createHash } = require('node:crypto');

const note = (request) => console.log(JSON.stringify({
  method: request.method, path: request.url, mark: request.headers['x-demo-mark'] ?? null,
}));

const server = http.createServer((request, response) => {
  note(request);
  request.resume().on('end', () => {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({
      service: 'notify', runtime: `node ${process.versions.node}`,
      caller: request.headers['x-everyhop-caller'], saw: Object.entries(request.headers),
    }));
  });
});

// RFC 6455: accept, then send one unmasked text frame that names the caller, and close.
server.on('upgrade', (request, socket) => {
  note(request);
  const key = request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
  const accept = createHash('sha1').update(key).digest('base64');
  const text = Buffer.from(`hello ${request.headers['x-everyhop-caller']}`);
  socket.on('error', () => socket.destroy());
  socket.write('HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n'
    + `sec-websocket-accept: ${accept}\r\n\r\n`);
  socket.end(Buffer.concat([Buffer.from([0x81, text.length]), text, Buffer.from([0x88, 0])]));
});

server.listen(process.env.EVERYHOP_SOCKET);
process.on('SIGTERM', () => process.exit(0));
