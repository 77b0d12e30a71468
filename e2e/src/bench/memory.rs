//! Peak resident memory of a call and of what it waits for.

use super::contender::Contender;
use crate::bed::compile;
use crate::cnirun::Attachment;

/// Runs a program and writes the peak of its memory, and of its children's, to stderr in KiB. A
/// launcher this small is needed because exec records the peak of the memory it replaces.
const LAUNCHER: &str = r#"
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int status = 0;
    struct rusage usage;
    pid_t pid = fork();
    if (pid == 0) { execv(argv[1], argv + 1); _exit(127); }
    wait4(pid, &status, 0, &usage);
    fprintf(stderr, "\npeak %ld\n", usage.ru_maxrss);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
"#;

/// Peaks of some ADDs, in MiB.
pub fn peaks_of_add(contender: &Contender) -> Vec<f64> {
    let launcher = compile(&contender.bed, LAUNCHER, "launcher");
    let mut network = contender.network();
    network.wrap = vec![launcher.into()];
    (0..5)
        .map(|i| {
            let ns = contender.pod("pod");
            let pod = Attachment::new(&format!("m{i}"), &ns);
            let answer = network.exec("ADD", &network.config(&network.plugins[0], None), &pod);
            answer.result().unwrap_or_else(|e| panic!("ADD by {}: {e}", contender.name));
            peak(&answer.stderr_text())
        })
        .collect()
}

fn peak(stderr: &str) -> f64 {
    let line =
        stderr.lines().rev().find_map(|l| l.strip_prefix("peak ")).expect("the launcher tells the peak");
    line.parse::<f64>().expect("a number") / 1024.0
}
