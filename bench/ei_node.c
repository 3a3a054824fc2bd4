/* A C-node as one writes them with `ei`, for comparison (see bench/node.exs): whatever its name, an engine that answers
 * `gen_server` calls with the request itself and swallows casts.
 *
 *   ei_node NAME COOKIE     NAME@127.0.0.1; ends with its standard input
 *
 * `ei` offers no monitors across distribution: a caller's BEAM sends two frames less per call than it sends to a BEAM node
 * or to Legation's daemon, and nobody is told when the node's engines end.
 */

#include <arpa/inet.h>
#include <ei.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *end_with_input(void *unused) {
    char byte;
    (void)unused;
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
    _exit(0);
}

static void fail(const char *what) {
    fprintf(stderr, "ei_node: %s failed\n", what);
    exit(1);
}

/* {'$gen_call', {Pid, Tag}, Request}: Pid gets {Tag, Request}. All else is swallowed. -1: the connection is gone. */
static int answer(int fd, const char *message, ei_x_buff *reply) {
    int index = 0, version, arity, tag;
    char atom[MAXATOMLEN_UTF8];
    erlang_pid from;

    if (ei_decode_version(message, &index, &version) || ei_decode_tuple_header(message, &index, &arity) || arity != 3 ||
        ei_decode_atom(message, &index, atom) || strcmp(atom, "$gen_call") ||
        ei_decode_tuple_header(message, &index, &arity) || arity != 2 || ei_decode_pid(message, &index, &from))
        return 0;
    tag = index;
    if (ei_skip_term(message, &index) || ei_skip_term(message, &index))
        return 0;

    /* Tag and request stand one behind the other, as they will in the reply: they are copied as they are. */
    reply->index = 0;
    if (ei_x_encode_version(reply) || ei_x_encode_tuple_header(reply, 2) ||
        ei_x_append_buf(reply, message + tag, index - tag))
        return -1;
    return ei_send(fd, &from, reply->buff, reply->index);
}

static void serve(int fd) {
    ei_x_buff message, reply;
    erlang_msg meta;
    int got;

    if (ei_x_new(&message) || ei_x_new(&reply))
        fail("memory");
    do {
        message.index = 0;
        got = ei_xreceive_msg(fd, &meta, &message);
        if (got == ERL_MSG && (meta.msgtype == ERL_SEND || meta.msgtype == ERL_REG_SEND) &&
            answer(fd, message.buff, &reply) < 0)
            got = ERL_ERROR;
    } while (got != ERL_ERROR);
    ei_x_free(&message);
    ei_x_free(&reply);
    close(fd);
}

int main(int argc, char **argv) {
    char node[MAXNODELEN];
    struct in_addr address;
    ei_cnode self;
    ErlConnect peer;
    pthread_t watcher;
    int listener, fd, port = 0;

    if (argc != 3)
        fail("usage: ei_node NAME COOKIE:");
    snprintf(node, sizeof node, "%s@127.0.0.1", argv[1]);
    address.s_addr = htonl(INADDR_LOOPBACK);
    if (ei_init() || ei_connect_xinit(&self, "127.0.0.1", argv[1], node, &address, argv[2], 1) < 0)
        fail("ei_connect_xinit");
    if ((listener = ei_listen(&self, &port, 5)) < 0)
        fail("ei_listen");
    if (ei_publish(&self, port) < 0)
        fail("ei_publish");
    if (pthread_create(&watcher, NULL, end_with_input, NULL))
        fail("pthread_create");
    printf("READY %s\n", node);
    fflush(stdout);
    for (;;)
        if ((fd = ei_accept(&self, listener, &peer)) >= 0)
            serve(fd);
}
