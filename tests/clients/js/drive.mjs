// As drive.py, for clients of Node:  node drive.mjs CLIENT FEATURE BASE
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, streamText, tool } from "ai";
import OpenAI from "openai";
import OpenAI4 from "openai4";

const [client, feature, base] = process.argv.slice(2);
const model = "demo";
const messages = [{ role: "user", content: "hello" }];
const parameters = { type: "object", properties: { x: { type: "integer" } }, required: ["x"] };

async function openai(Library) {
  const chat = new Library({ baseURL: `${base}/v1`, apiKey: "EMPTY", maxRetries: 0 }).chat.completions;
  switch (feature) {
    case "chat":
      return { text: (await chat.create({ model, messages })).choices[0].message.content };
    case "stream":
    case "killed": {
      let text = "";
      for await (const chunk of await chat.create({ model, messages, stream: true }))
        text += chunk.choices[0]?.delta?.content ?? "";
      return { text };
    }
    case "tools": {
      const tools = [{ type: "function", function: { name: "tap", parameters } }];
      const reply = await chat.create({ model, messages, tools, tool_choice: "required" });
      const call = reply.choices[0].message.tool_calls[0].function;
      return { call: call.name, arguments: JSON.parse(call.arguments) };
    }
    case "structured": {
      const response_format = { type: "json_schema", json_schema: { name: "point", schema: parameters } };
      const reply = await chat.create({ model, messages, response_format });
      return { value: JSON.parse(reply.choices[0].message.content) };
    }
    case "error":
      try {
        await chat.create({ model: "nobody", messages });
      } catch (error) {
        return { code: error.code, status: error.status };
      }
  }
}

async function ai(provider) {
  const asked = { model: provider(model), prompt: "hello", maxRetries: 0 };
  switch (feature) {
    case "chat":
      return { text: (await generateText(asked)).text };
    case "stream":
    case "killed": {
      let text = "", failed;
      const stream = streamText({ ...asked, onError: ({ error }) => (failed = error) });
      for await (const part of stream.textStream) text += part;
      if (failed) throw failed;
      return { text };
    }
    case "tools": {
      const tools = { tap: tool({ description: "Tap.", inputSchema: jsonSchema(parameters) }) };
      const { toolCalls } = await generateText({ ...asked, tools, toolChoice: "required" });
      return { call: toolCalls[0].toolName, arguments: toolCalls[0].input };
    }
    case "error":
      try {
        await generateText({ ...asked, model: provider("nobody") });
      } catch (error) {
        return { code: JSON.parse(error.responseBody).error.code, status: error.statusCode };
      }
  }
}

const at = { baseURL: `${base}/v1`, apiKey: "EMPTY" };
const clients = {
  "openai-node": () => openai(OpenAI),
  "openai-node-4": () => openai(OpenAI4),
  "ai-openai": () => ai(createOpenAI(at)),
  "ai-openai-compatible": () => ai(createOpenAICompatible({ ...at, name: "autoglm" })),
};
console.log(JSON.stringify(await clients[client]()));
