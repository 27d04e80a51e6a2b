'use strict';
// Rooms over the npm package ws: a publication's frame is built once and the same buffer is written to each member.
//
// /ws    join ROOM | leave ROOM | publish ROOM MESSAGE; MESSAGE goes to every member, the sender too
// /echo  returns each message

const http = require('http');
const { Sender, WebSocketServer } = require('ws');

const WAITING_BYTES_MAX = 1024 * 1024;
const TEXT_FRAME = { fin: true, rsv1: false, opcode: 1, mask: false, readOnly: true };

const rooms = new Map();

function publish(room, message) {
  const members = rooms.get(room);
  if (!members) return;
  const frame = Buffer.concat(Sender.frame(Buffer.from(message), TEXT_FRAME));
  for (const client of members) {
    // The library has no public way to send a frame that is built: this is what its sender does with one.
    const socket = client._socket;
    if (socket.writableLength > WAITING_BYTES_MAX) client.terminate();
    else socket.write(frame);
  }
}

function join(client, room) {
  let members = rooms.get(room);
  if (!members) rooms.set(room, (members = new Set()));
  members.add(client);
  client.rooms.push(room);
  client.send(`joined ${room}`);
}

function leave(client, room) {
  const members = rooms.get(room);
  if (members?.delete(client) && members.size === 0) rooms.delete(room);
}

function handle(client, text) {
  const verb = text.slice(0, text.indexOf(' '));
  const rest = text.slice(verb.length + 1);
  const end = rest.indexOf(' ');
  if (verb === 'publish' && end > 0) publish(rest.slice(0, end), rest.slice(end + 1));
  else if (verb === 'join') join(client, rest);
  else if (verb === 'leave') leave(client, rest);
  else client.send(`error: ${verb}`);
}

const options = { noServer: true, clientTracking: false, perMessageDeflate: false };
const server = new WebSocketServer(options);
const listener = http.createServer((_, response) => response.writeHead(404).end());
listener.on('upgrade', (request, socket, head) => {
  server.handleUpgrade(request, socket, head, (client) => {
    client.on('error', () => client.terminate());
    if (request.url === '/echo') {
      client.on('message', (data, binary) => client.send(data, { binary }));
      return;
    }
    client.rooms = [];
    client.on('message', (data) => handle(client, data.toString()));
    client.on('close', () => client.rooms.forEach((room) => leave(client, room)));
  });
});
listener.listen({ host: '127.0.0.1', port: Number(process.argv[2]), backlog: 4096 }, () => {
  console.log(`listening public ws://127.0.0.1:${listener.address().port}/ws`);
});
