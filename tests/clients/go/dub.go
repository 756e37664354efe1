// Send a video and speech to a gateway, dub the video, and fetch the result: docs/integrating.md, "Other languages".
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	longrunningpb "cloud.google.com/go/longrunning/autogen/longrunningpb"
	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	gatewaypb "example.org/dub/gen/dubstage/gateway/v1"
)

const pieceBytes = 1 << 20

func main() {
	if err := dub(); err != nil {
		log.Fatal(err)
	}
}

func dub() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	connection, err := grpc.NewClient("localhost:50050", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	media := gatewaypb.NewMediaServiceClient(connection)
	footage, err := upload(ctx, media, "shot.mp4")
	if err != nil {
		return err
	}
	speech, err := upload(ctx, media, "speech.wav")
	if err != nil {
		return err
	}

	// A repeated call with the same RequestId is the same dub.
	request := &gatewaypb.CreateDubRequest{
		Dub:       &gatewaypb.DubSpec{FootageUri: footage.Name, SpeechUri: speech.Name, OutputUri: "uploads/go.mp4"},
		RequestId: uuid.NewString(),
	}
	operation, err := gatewaypb.NewDubServiceClient(connection).CreateDub(ctx, request)
	operations := longrunningpb.NewOperationsClient(connection)
	for err == nil && !operation.Done {
		operation, err = operations.WaitOperation(ctx, &longrunningpb.WaitOperationRequest{
			Name: operation.Name, Timeout: durationpb.New(2 * time.Second),
		})
		progress := &gatewaypb.OperationProgress{}
		if err == nil && proto.Unmarshal(operation.Metadata.GetValue(), progress) == nil {
			fmt.Printf("%.0f %% %s\n", 100*progress.Fraction, progress.Step)
		}
	}
	if err != nil {
		return err
	}
	if failure := operation.GetError(); failure != nil {
		return errors.New(failure.Message)
	}
	result := &gatewaypb.DubResult{}
	if err := proto.Unmarshal(operation.GetResponse().GetValue(), result); err != nil {
		return err
	}
	if err := download(ctx, media, result.OutputUri, "go.mp4"); err != nil {
		return err
	}
	fmt.Printf("%d of %d frames dubbed: go.mp4\n", result.NumDubbed, result.NumFrames)
	return nil
}

func upload(ctx context.Context, media gatewaypb.MediaServiceClient, name string) (*gatewaypb.Upload, error) {
	file, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	stream, err := media.UploadFile(ctx)
	if err != nil {
		return nil, err
	}
	first := &gatewaypb.UploadFileRequest{
		Name: "uploads/" + name, SizeBytes: int64(len(file)), Sha256: fmt.Sprintf("%x", sha256.Sum256(file)),
	}
	// Send returns io.EOF if the gateway has refused the file: CloseAndRecv says why.
	err = stream.Send(first)
	for begin := 0; err == nil && begin < len(file); begin += pieceBytes {
		end := begin + pieceBytes
		if end > len(file) {
			end = len(file)
		}
		err = stream.Send(&gatewaypb.UploadFileRequest{Data: file[begin:end]})
	}
	if err != nil && err != io.EOF {
		return nil, err
	}
	return stream.CloseAndRecv()
}

func download(ctx context.Context, media gatewaypb.MediaServiceClient, path, name string) error {
	stream, err := media.DownloadFile(ctx, &gatewaypb.DownloadFileRequest{Path: path})
	if err != nil {
		return err
	}
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	defer file.Close()
	for {
		piece, err := stream.Recv()
		if err == io.EOF {
			return file.Close()
		}
		if err != nil {
			return err
		}
		if _, err := file.Write(piece.Data); err != nil {
			return err
		}
	}
}
