package coordinator_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestProcessesJoinWithTokens has an agent and a coordinator get their certificates from the coordinators.
func TestProcessesJoinWithTokens(t *testing.T) {
	c := start(t, 3, nil)
	admin := c.certs("admin")
	if out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "holdfast"), "coordinator", "token", "create", "--name", "n7", "--certs", admin).CombinedOutput(); err == nil || !strings.Contains(string(out), "--ca") {
		t.Fatalf("a token without the CA's key: %v: %s", err, out)
	}
	c.extra = []string{"--ca", c.certs("ca")}
	for _, name := range c.names {
		c.end(name, syscall.SIGTERM)
		c.run(name)
	}
	token := func(args ...string) string {
		file := filepath.Join(t.TempDir(), "token")
		c.holdfast(append([]string{"coordinator", "token", "create", "--certs", admin, "--out", file}, args...)...)
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("the token's file: %v, %v", info, err)
		}
		return file
	}
	home := t.TempDir()
	agent := func(token, certs string) *exec.Cmd {
		return exec.CommandContext(t.Context(), filepath.Join(bin, "holdfastd"), "agent", "--data-dir", home, "--node-id", "n7", "--metrics-listen", "127.0.0.1:0", "--join", token, "--certs", filepath.Join(home, certs))
	}
	first := token("--role", "agent", "--name", "n7", "--ttl", "1h")
	joined := agent(first, "certs")
	log, err := os.Create(filepath.Join(t.TempDir(), "agent.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	joined.Stdout, joined.Stderr = log, log
	t.Cleanup(func() {
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("agent: %s\n%s", text, c.logs())
		}
	})
	if err := joined.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "the agent has joined and reports", func() bool {
		return strings.Contains(c.holdfast("nodes", "list", "--certs", admin), "n7")
	})
	_ = joined.Process.Kill()
	_ = joined.Wait()
	if out, err := agent(first, "more").CombinedOutput(); err == nil || !strings.Contains(string(out), "joined with this token already") {
		t.Errorf("a token for two: %v: %s", err, out)
	}
	if err := os.Remove(first); err != nil {
		t.Fatal(err)
	}
	again := agent(first, "certs")
	again.Stdout, again.Stderr = log, log
	if err := again.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "the agent is there again without its token", func() bool {
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "holdfast"), "agent", "status", "--data-dir", home, "-o", "json").Output()
		return err == nil && strings.Contains(string(out), `"coordinated": true`)
	})
	_ = again.Process.Kill()
	_ = again.Wait()
	late := token("--role", "agent", "--name", "n7", "--ttl", "1s")
	time.Sleep(2 * time.Second)
	if out, err := agent(late, "late").CombinedOutput(); err == nil || !strings.Contains(string(out), "expired") {
		t.Errorf("a token that has expired: %v: %s", err, out)
	}
	if out, err := agent(token("--role", "member", "--name", "n7"), "wrong").CombinedOutput(); err == nil || !strings.Contains(string(out), "is for coordinator/n7") {
		t.Errorf("an agent with a member's token: %v: %s", err, out)
	}

	address, dir := freeAddress(t), t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	member := exec.CommandContext(ctx, filepath.Join(bin, "holdfastd"), "coordinator", "--certs", filepath.Join(dir, "certs"), "--dir", filepath.Join(dir, "log"), "--address", address, "--join", token("--role", "member", "--name", "c4"))
	if err := member.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = member.Wait() }()
	until(t, "the new member is taken in", func() bool {
		return exec.CommandContext(ctx, filepath.Join(bin, "holdfast"), "coordinator", "add", "c4", address, "--certs", admin).Run() == nil
	})
	until(t, "the new member follows", func() bool {
		for line := range strings.Lines(c.holdfast("coordinator", "status", "--certs", admin)) {
			if strings.HasPrefix(line, "c4 ") && strings.Contains(line, "follower") {
				return true
			}
		}
		return false
	})
}

// until waits for something that comes true in the end.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came to be that %s", what)
		}
	}
}
