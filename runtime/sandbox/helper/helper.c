/* The last step of every container: a program of our own between Python and the container's program.
 *
 * Why it exists. A process that enters a container and then executes something from it can be tricked, by the name
 * /proc/self/exe, into executing its own file inside: the container then holds a handle on that file of the host and
 * may overwrite it later (CVE-2019-5736). Python's interpreter must not be that file. This program is: it is copied
 * into a sealed memfd, belongs to nobody, and cannot be changed.
 *
 *   pipe-exec PATH ARGV0 ARGS...   execute PATH
 *   pipe-init PATH ARGV0 ARGS...   execute PATH in a child; as process 1, pass signals on to it, reap everybody's
 *                                  orphans, and end as it ends (`--init`)
 *
 * Descriptor 3 is the line to the spawner (none under another OCI runtime). It closes when PATH runs; when PATH cannot be executed, the error number
 * is sent on it, eight bytes. No C library: the whole is about one kilobyte. Built by `build` beside this file.
 */

#if defined(__x86_64__)
enum { WRITE = 1, SIGACTION = 13, SIGPROCMASK = 14, IOCTL = 16, CLONE = 56, EXECVE = 59, EXIT = 60, WAIT4 = 61,
       KILL = 62, FCNTL = 72, SETPGID = 109, SIGTIMEDWAIT = 128, CLOSE = 3 };
static long call(long number, long a, long b, long c, long d)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = 0;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}
__asm__(".globl _start\n_start:\n mov %rsp, %rdi\n and $-16, %rsp\n call start\n");
#elif defined(__aarch64__)
enum { WRITE = 64, SIGACTION = 134, SIGPROCMASK = 135, IOCTL = 29, CLONE = 220, EXECVE = 221, EXIT = 94, WAIT4 = 260,
       KILL = 129, FCNTL = 25, SETPGID = 154, SIGTIMEDWAIT = 137, CLOSE = 57 };
static long call(long number, long a, long b, long c, long d)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = 0;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
}
__asm__(".globl _start\n_start:\n mov x0, sp\n bl start\n");
#else
#error "add the call numbers of this machine"
#endif

enum { LINE = 3, F_SETFD = 2, FD_CLOEXEC = 1, TIOCSPGRP = 0x5410, SIGCHLD = 17, SIGTTIN = 21, SIGTTOU = 22,
       SIG_IGN = 1, SIG_DFL = 0, SIG_BLOCK = 0, SIG_SETMASK = 2, WNOHANG = 1, CANNOT_EXECUTE = 127, EBADF = 9 };

struct action { long handler, flags, restorer, mask; };

static void execute(char **argv, char **envp, int is_init)
{
    long error = call(FCNTL, LINE, F_SETFD, FD_CLOEXEC, 0);
    /* Only as another runtime's init may there be no line: from inside, nobody gets us to execute anything. */
    if (error == 0 || (error == -EBADF && is_init))
        error = call(EXECVE, (long)argv[0], (long)(argv + 1), (long)envp, 0);
    error = -error;
    call(WRITE, LINE, (long)&error, sizeof error, 0);
    call(EXIT, CANNOT_EXECUTE, 0, 0, 0);
}

static void handle(int number, long handler)
{
    struct action action = { handler, 0, 0, 0 };
    call(SIGACTION, number, (long)&action, 0, 8);
}

/* The program gets a process group of its own in the foreground, so that a terminal's keys reach it and not us. */
static void run(char **argv, char **envp, unsigned long *mask)
{
    int group = (int)call(SETPGID, 0, 0, 0, 0);
    if (group == 0) {
        /* Descriptor 0 need not be a terminal: then this does nothing. Our pid in our namespace is always 2. */
        int own = 2;
        call(IOCTL, 0, TIOCSPGRP, (long)&own, 0);
    }
    handle(SIGTTIN, SIG_DFL);
    handle(SIGTTOU, SIG_DFL);
    call(SIGPROCMASK, SIG_SETMASK, (long)mask, 0, 8);
    execute(argv, envp, 1);
}

static void reap(int program)
{
    int status, pid;
    while ((pid = (int)call(WAIT4, -1, (long)&status, WNOHANG, 0)) > 0)
        if (pid == program)
            call(EXIT, status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff, 0, 0, 0);
}

static void init(char **argv, char **envp)
{
    unsigned long all = ~0ul, before = 0;
    int info[32];
    handle(SIGTTIN, SIG_IGN);
    handle(SIGTTOU, SIG_IGN);
    call(SIGPROCMASK, SIG_BLOCK, (long)&all, (long)&before, 8);
    int program = (int)call(CLONE, SIGCHLD, 0, 0, 0);
    if (program == 0)
        run(argv, envp, &before);
    call(CLOSE, LINE, 0, 0, 0);
    for (;;) {
        int number = (int)call(SIGTIMEDWAIT, (long)&all, (long)info, 0, 8);
        if (number == SIGCHLD)
            reap(program);
        else if (number > 0)
            call(KILL, program, number, 0, 0);
    }
}

__attribute__((used, noreturn)) void start(long *stack)
{
    char **argv = (char **)(stack + 1);
    char **envp = argv + stack[0] + 1;
    if (argv[0][5] == 'i')
        init(argv + 1, envp);
    execute(argv + 1, envp, 0);
    for (;;)
        ;
}
