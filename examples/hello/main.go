// Command hello is a small service to release: it says which version it is.
//
//	GET /         hello 1.0
//	GET /healthz  ok
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	version := flag.String("version", os.Getenv("HELLO_VERSION"), "the version it says it is")
	port := flag.Int("port", 8080, "port to listen on, on the loopback address")
	pidFile := flag.String("pid-file", "", "file that holds the process id; removed at the end")
	flag.Parse()
	if *version == "" {
		log.Fatal("hello: say which version this is, with -version or HELLO_VERSION")
	}
	if err := serve(*version, *port, *pidFile); err != nil {
		log.Fatal("hello: ", err)
	}
}

// serve answers until the process is told to end, and then finishes what it has begun.
func serve(version string, port int, pidFile string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	server := &http.Server{
		Addr:              fmt.Sprintf("127.0.0.1:%d", port),
		Handler:           handler(version),
		ReadHeaderTimeout: 5 * time.Second,
	}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(drain)
	}()
	log.Printf("hello %s listens on %s", version, server.Addr)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return errors.Join(<-stopped, removePID(pidFile))
}

// removePID removes the file, unless it is a later process's by now. That it is gone says that this one has stopped.
func removePID(file string) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil || strings.TrimSpace(string(text)) != strconv.Itoa(os.Getpid()) {
		return err
	}
	return os.Remove(file)
}

func handler(version string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "hello %s\n", version) })
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	return mux
}
