// Rooms as topics of uWebSockets: its own publish/subscribe does the fan-out.
//
// /ws    join ROOM | leave ROOM | publish ROOM MESSAGE; MESSAGE goes to every member, the sender too
// /echo  returns each message

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "App.h"

namespace {

struct Nothing {};

constexpr unsigned waiting_bytes_max = 1024 * 1024;

void handle(uWS::App &app, uWS::WebSocket<false, true, Nothing> *client, std::string_view text) {
    const auto verb = text.substr(0, text.find(' '));
    const auto rest = text.substr(std::min(verb.size() + 1, text.size()));
    const auto room = rest.substr(0, rest.find(' '));
    if (verb == "publish" && room.size() < rest.size()) {
        app.publish(room, rest.substr(room.size() + 1), uWS::OpCode::TEXT);
    } else if (verb == "join") {
        client->subscribe(room);
        client->send("joined " + std::string(room), uWS::OpCode::TEXT);
    } else if (verb == "leave") {
        client->unsubscribe(room);
    } else {
        client->send("error: " + std::string(verb), uWS::OpCode::TEXT);
    }
}

}  // namespace

int main(int, char **arguments) {
    uWS::App app;
    auto rooms = [&app](auto *client, std::string_view text, uWS::OpCode) { handle(app, client, text); };
    auto echo = [](auto *client, std::string_view text, uWS::OpCode kind) { client->send(text, kind); };
    app.ws<Nothing>("/ws", {.maxBackpressure = waiting_bytes_max, .closeOnBackpressureLimit = true, .message = rooms});
    app.ws<Nothing>("/echo", {.message = echo});
    app.listen("127.0.0.1", std::atoi(arguments[1]), [](us_listen_socket_t *listener) {
        if (!listener) std::exit(1);
        std::printf("listening public ws://127.0.0.1:%d/ws\n", us_socket_local_port(0, (us_socket_t *) listener));
        std::fflush(stdout);
    });
    app.run();
}
