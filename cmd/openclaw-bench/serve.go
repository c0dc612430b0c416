package main

import (
	"context"
	"fmt"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/bench/origin"
	"github.com/andreabadesso/openclaw-cloud/bench/peers"
	"github.com/andreabadesso/openclaw-cloud/bench/poller"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
)

func (a *app) originCommand() *cobra.Command {
	var listen, ca string
	cmd := &cobra.Command{
		Use:   "origin",
		Short: "Serve as a cheap upstream in Kimi's shape",
		Long: `origin answers as Kimi does, at next to no cost, so that a proxy in front of it is what
a measurement measures. Requests choose length and pace of their answers as with kimisim,
by [[sim:{"output_tokens":100,"tokens_per_second":50,"stamp":true}]] in a message.`,
		Example: `  openclaw-bench origin --listen 127.0.0.1:9400`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := poller.Raise(); err != nil {
				return err
			}
			if ca != "" {
				return serveTLS(cmd.Context(), listen, ca)
			}
			addr, err := poller.Resolve(listen)
			if err != nil {
				return err
			}
			s, err := origin.Listen(addr)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "origin listening on http://%s\n", s.Addr())
			return s.Serve(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:9400", "address; port 0 takes a free one")
	cmd.Flags().StringVar(&ca, "tls-ca", "", "speak TLS with a fresh certificate, and write its root to this file")
	return cmd
}

func serveTLS(ctx context.Context, listen, ca string) error {
	cfg, root, err := kimisim.SelfSigned()
	if err != nil {
		return err
	}
	if err := os.WriteFile(ca, root, 0o644); err != nil {
		return fmt.Errorf("origin: root certificate: %w", err)
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("origin: %w", err)
	}
	return origin.ServeTLS(ctx, l, cfg)
}

func (a *app) peerCommand() *cobra.Command {
	var listen, upstream string
	cmd := &cobra.Command{
		Use:     "peer {reverseproxy|fasthttp}",
		Short:   "Serve as one of the proxies that token-proxy is compared with",
		Example: `  openclaw-bench peer fasthttp --listen 127.0.0.1:9401 --upstream 127.0.0.1:9400`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := poller.Raise(); err != nil {
				return err
			}
			return peers.Serve(cmd.Context(), args[0], listen, upstream)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:9401", "address")
	cmd.Flags().StringVar(&upstream, "upstream", "127.0.0.1:9400", "host:port to forward to, without TLS")
	return cmd
}
